"""Variance tuned momentum iterative FGSM."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe(
    "vmi-fgsm",
    needs="gradient",
    cost="(steps × (variance + 1) − variance) × (F + B) + F",
    source="Wang & He 2021",
)
def vmi_fgsm(steps: int = 10, momentum: float = 1.0, variance: int = 20, radius: float = 1.5) -> Recipe:
    """mi-fgsm with gradients corrected by how they varied around the last point.

    `variance` neighbours are drawn uniformly from `radius` times the budget; those of the last step, which the
    publication draws too, would change nothing.
    """
    return momentum_recipe(steps, momentum, variance=variance, radius=radius)
