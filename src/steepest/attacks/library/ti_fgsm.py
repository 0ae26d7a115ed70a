"""Translation invariant FGSM."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe("ti-fgsm", needs="gradient", cost="steps × (F + B) + F", source="Dong et al. 2019")
def ti_fgsm(steps: int = 10, momentum: float = 1.0, kernel: int = 15) -> Recipe:
    """mi-fgsm with gradients smoothed by a Gaussian, as if averaged over shifted images; images only.

    The Gaussian is `kernel` pixels wide and cut at three standard deviations, as in the authors' code: 7/3 pixels
    for 15.
    """
    return momentum_recipe(steps, momentum, kernel=kernel)
