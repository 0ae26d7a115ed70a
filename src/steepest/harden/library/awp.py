"""Adversarial weight perturbation, on top of another method."""

from __future__ import annotations

from dataclasses import replace

from steepest.basis.errors import UsageError
from steepest.harden.catalogue import METHODS
from steepest.harden.crafts import require_least
from steepest.harden.descent import WorstWeights
from steepest.harden.recipe import Training, method


@method(
    "awp",
    source="Wu, Xia & Wang 2020",
    cost="of the method, and its training pass once more",
    says="long trainings, where robust accuracy falls again on held-out data",
)
def awp(method: str = "pgd", gamma: float = 0.01) -> Training:
    """Another method, descended where its loss is largest in the weights: every tensor moved by gamma·‖w‖ meanwhile.

    Raises:
        UsageError: a method that is not made of parts (free, ibp, crown-ibp), or gamma below 0.
    """
    require_least("gamma", gamma, 0)
    inner = METHODS.build(method)
    if not isinstance(inner, Training) or inner.weights is not None:
        raise UsageError(
            f"method={method!r} takes no weight perturbation; give one that crafts points and then descends: "
            "pgd, trades, mart, n-fgsm, fgsm-rs, fgsm, grad-align, noise or plain."
        )
    return replace(inner, weights=WorstWeights(gamma))
