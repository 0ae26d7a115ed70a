"""Training on one gradient step from strong noise, without a projection."""

from __future__ import annotations

from steepest.harden.crafts import Climb, Uniform
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method(
    "n-fgsm",
    source="de Jorge et al. 2022",
    cost="2 F + 2 B",
    says="the default: the cheapest that holds up; noise=3 or 4 at very large budgets",
)
def n_fgsm(noise: float = 2.0, step: float = 1.0, smoothing: float = 0.0, craft_mode: str = "train") -> Training:
    """Cross-entropy after one step of `step` budgets from uniform noise of `noise` budgets; only the box cuts.

    Points go up to noise + step budgets from x, by design: they are for training, and measure nothing.
    """
    craft = Climb(start=Uniform(noise), steps=1, step=step, craft_mode=craft_mode, reach=max(1.0, noise + step))
    return Training(craft=craft, loss=AtPoint(smoothing))
