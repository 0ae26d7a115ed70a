"""FGSM training with a penalty for gradients that turn."""

from __future__ import annotations

from steepest.harden.alignment import GradAlign
from steepest.harden.crafts import Jump
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method(
    "grad-align",
    source="Andriushchenko & Flammarion 2020",
    cost="3 F + 5 B",
    says="large budgets where n-fgsm still overfits; needs a network that can be differentiated twice",
)
def grad_align(weight: float = 0.2, smoothing: float = 0.0, craft_mode: str = "train") -> Training:
    """fgsm plus weight·(1 − cos(∇L(x), ∇L(p))), p uniform in the budget; the paper's weight at 8/255 is 0.2."""
    craft = Jump(craft_mode=craft_mode)
    return Training(craft=craft, loss=AtPoint(smoothing), regulariser=GradAlign(weight))
