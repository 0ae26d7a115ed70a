"""Training under Gaussian noise."""

from __future__ import annotations

from steepest.harden.crafts import Gaussian
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method("noise", source="Cohen et al. 2019", cost="1 F + 1 B", says="before randomised smoothing with the same σ")
def noise(sigma: float = 0.25, smoothing: float = 0.0) -> Training:
    """Cross-entropy at x + σ·N(0, 1), σ in data units; neither budget nor box cut the noise."""
    return Training(craft=Gaussian(sigma), loss=AtPoint(smoothing))
