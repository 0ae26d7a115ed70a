"""MART."""

from __future__ import annotations

from steepest.harden.crafts import Climb, Nudged
from steepest.harden.losses import Mart
from steepest.harden.recipe import Training, method


@method(
    "mart",
    source="Wang et al. 2020",
    cost="(steps + 2) × (F + B)",
    says="more weight on examples that are wrong already; good under PGD, less so under stronger attacks",
)
def mart(steps: int = 10, step: float = 0.25, beta: float = 6.0, craft_mode: str = "eval") -> Training:
    """CE(x′) − log(1.0001 − max over k ≠ y of p′ₖ) + beta·KL(p ‖ p′)·(1 − p_y), x′ by projected steps.

    x and the points share one training forward.
    """
    craft = Climb(start=Nudged(), steps=steps, step=step, craft_mode=craft_mode)
    return Training(craft=craft, loss=Mart(beta))
