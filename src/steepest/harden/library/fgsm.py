"""Training on the points of the Fast Gradient Sign Method."""

from __future__ import annotations

from steepest.harden.crafts import Jump
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method(
    "fgsm",
    source="Goodfellow, Shlens & Szegedy 2015",
    cost="2 F + 2 B",
    says="small budgets; at larger ones it ends in catastrophic overfitting, which it is here to show",
)
def fgsm(smoothing: float = 0.0, craft_mode: str = "train") -> Training:
    """Cross-entropy at x + extreme(∇ₓ), from x itself."""
    return Training(craft=Jump(craft_mode=craft_mode), loss=AtPoint(smoothing))
