"""Nesterov iterative FGSM."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe("ni-fgsm", needs="gradient", cost="steps × (2 F + B)", source="Lin et al. 2020")
def ni_fgsm(steps: int = 10, momentum: float = 1.0) -> Recipe:
    """mi-fgsm with each gradient taken where the momentum is about to lead: at x + α·μ·v, inside the budget."""
    return momentum_recipe(steps, momentum, nesterov=True)
