"""Margin steps from starts that are diverse in the model's outputs."""

from __future__ import annotations

from steepest.attacks.ascent import GradientAscent
from steepest.attacks.chain import Chain
from steepest.attacks.diversified import Diversify
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.starts import uniform


@recipe(
    "odi",
    needs="gradient",
    cost="restarts × ((steps + diversify) × (F + B) + F)",
    source="Tashiro, Song & Ermon 2020",
)
def odi(steps: int = 20, step: float = 1 / 4, restarts: int = 20, diversify: int = 2) -> Recipe:
    """PGD on the margin, each restart first led away by `diversify` full steps along a random output direction.

    A step is the share `step` of the budget: 2/255 where ε is 8/255, as published. The published start is uniform
    in the budget and not clipped into the box; ours is uniform over the part inside.
    """
    return Recipe(
        search=Chain(Diversify(diversify), GradientAscent(steps, step)),
        start=uniform,
        restarts=restarts,
        objective="margin",
    )
