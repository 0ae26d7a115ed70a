"""Training on one gradient step from a random start."""

from __future__ import annotations

from steepest.harden.crafts import Climb, Uniform
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method(
    "fgsm-rs",
    source="Wong, Rice & Kolter 2020",
    cost="2 F + 2 B",
    says="fast and moderate budgets; overfits to its one step later than fgsm, but does",
)
def fgsm_rs(step: float = 1.25, smoothing: float = 0.0, craft_mode: str = "train") -> Training:
    """Cross-entropy after one step of `step` budgets from a uniform start, projected into the budget."""
    craft = Climb(start=Uniform(), steps=1, step=step, craft_mode=craft_mode)
    return Training(craft=craft, loss=AtPoint(smoothing))
