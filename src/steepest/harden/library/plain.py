"""Training without an attack."""

from __future__ import annotations

from steepest.harden.crafts import Clean
from steepest.harden.losses import AtPoint
from steepest.harden.recipe import Training, method


@method("plain", source="-", cost="1 F + 1 B", says="the baseline: what robustness is measured against")
def plain(smoothing: float = 0.0) -> Training:
    """Cross-entropy at x itself; nothing is attacked."""
    return Training(craft=Clean(), loss=AtPoint(smoothing))
