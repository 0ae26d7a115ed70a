"""Momentum iterative FGSM."""

from __future__ import annotations

from steepest.attacks.ascent import GradientAscent
from steepest.attacks.recipe import Recipe, recipe


@recipe("mi-fgsm", needs="gradient", cost="steps × (F + B) + F", source="Dong et al. 2018")
def mi_fgsm(steps: int = 10, momentum: float = 1.0) -> Recipe:
    """Gradient steps of 1/steps of the budget from x, along a running sum of normalised gradients."""
    return Recipe(search=GradientAscent(steps, 1 / max(steps, 1), momentum))
