"""Scale invariant FGSM."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe("si-fgsm", needs="gradient", cost="steps × scales × (F + B) + F", source="Lin et al. 2020")
def si_fgsm(steps: int = 10, momentum: float = 1.0, scales: int = 5) -> Recipe:
    """mi-fgsm with the mean gradient over the copies x/2^i, i < scales.

    The publication also looks ahead: mi-fgsm(nesterov=True, scales=5).
    """
    return momentum_recipe(steps, momentum, scales=scales)
