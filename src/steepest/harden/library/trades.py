"""TRADES."""

from __future__ import annotations

from steepest.harden.crafts import Climb, Nudged
from steepest.harden.losses import Trades
from steepest.harden.recipe import Training, method


@method(
    "trades",
    source="Zhang et al. 2019",
    cost="(steps + 3) F + (steps + 2) B",
    says="a trade between clean and robust accuracy that `beta` sets",
)
def trades(
    steps: int = 10, step: float = 0.25, beta: float = 6.0, smoothing: float = 0.0, craft_mode: str = "eval"
) -> Training:
    """CE(x) + beta·KL(p ‖ p′), p′ where steps up that divergence lead from x + 0.001·N(0, 1).

    The outputs at x are asked for once while crafting; x and the points share one training forward.
    """
    craft = Climb(start=Nudged(), steps=steps, step=step, craft_mode=craft_mode, deviates=True)
    return Training(craft=craft, loss=Trades(beta, smoothing))
