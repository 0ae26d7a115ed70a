"""Training on CROWN-IBP bounds."""

from __future__ import annotations

from steepest.harden.certified import Certified
from steepest.harden.recipe import method
from steepest.harden.relaxed import tight_margins


@method(
    "crown-ibp",
    source="Zhang et al. 2020",
    cost="(3 + K) × (F + B) along the ramp, 3 F + 3 B after it",
    says="as ibp, and steadier at the start; networks of linear layers, convolutions and ReLU",
)
def crown_ibp(kappa: float = 0.5, ramp: float = 0.5) -> Certified:
    """ibp, with one linear pass backwards over the intervals, whose bound gives way to theirs along the ramp."""
    return Certified(kappa=kappa, ramp=ramp, tighter=tight_margins)
