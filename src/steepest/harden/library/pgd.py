"""Training on the points of projected gradient descent."""

from __future__ import annotations

from steepest.harden.crafts import Climb, Uniform
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method(
    "pgd",
    source="Madry et al. 2018",
    cost="(steps + 1) × (F + B)",
    says="the reference: no catastrophic overfitting known, at many times the price",
)
def pgd(
    steps: int = 10, step: float = 0.25, noise: float = 1.0, smoothing: float = 0.0, craft_mode: str = "train"
) -> Training:
    """Cross-entropy after `steps` projected steps of `step` budgets from a uniform start in `noise` budgets."""
    craft = Climb(start=Uniform(noise), steps=steps, step=step, craft_mode=craft_mode)
    return Training(craft=craft, loss=AtPoint(smoothing))
