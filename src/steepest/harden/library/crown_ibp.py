"""Training on CROWN-IBP bounds."""

from __future__ import annotations

from steepest.harden.certified import Certified
from steepest.harden.recipe import method
from steepest.harden.relaxed import tight_margins


@method(
    "crown-ibp",
    source="Zhang et al. 2020",
    cost="about (3 + K) × (F + B) during the ramp, as ibp after it",
    says="as ibp, and steadier at the start; networks of linear layers, convolutions and ReLU",
)
def crown_ibp(kappa: float = 0.5, ramp: float = 0.5) -> Certified:
    """ibp, with one linear pass backwards over the intervals, whose bound gives way to theirs along the ramp."""
    return Certified(kappa=kappa, ramp=ramp, passes=3, tighter=tight_margins)
