"""Projected gradient descent: gradient steps with projection from random starts."""

from __future__ import annotations

from steepest.attacks.ascent import GradientAscent, size_of
from steepest.attacks.diversified import started
from steepest.attacks.recipe import Recipe, recipe


@recipe("pgd", needs="gradient", cost="restarts × (steps × (F + B) + F)", source="Madry et al. 2018")
def pgd(steps: int = 20, step: float | None = None, restarts: int = 1, start: str = "clipped") -> Recipe:
    """Gradient steps with projection from random starts; a step is 2.5/steps of the budget by default.

    `start` is "clipped" (uniform in the budget, then clipped into the box, as published), "uniform" (over the part
    of the budget inside the box), which is the stronger one where many values lie on the box's faces, "corner", or
    "odi" (uniform, then two full steps along a random direction of the outputs: 2 F + 2 B more per restart).
    """
    search, at = started(GradientAscent(steps, size_of(step, steps)), start)
    return Recipe(search=search, start=at, restarts=restarts)
