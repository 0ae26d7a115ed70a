"""Training on interval bounds."""

from __future__ import annotations

from steepest.harden.certified import Certified
from steepest.harden.recipe import method


@method(
    "ibp",
    source="Gowal et al. 2018",
    cost="about 3 F + 3 B",
    says="certified robustness with certifier ibp; long trainings with a long ramp, small weights at the start",
)
def ibp(kappa: float = 0.5, ramp: float = 0.5) -> Certified:
    """kappa·CE(z) + (1 − kappa)·CE of the worst logits that intervals allow over the hull of the budget.

    Budget and weight of the bound grow over the first `ramp` of the training.
    """
    return Certified(kappa=kappa, ramp=ramp, passes=3)
