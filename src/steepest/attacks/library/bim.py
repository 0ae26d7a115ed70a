"""The Basic Iterative Method: small gradient steps from x."""

from __future__ import annotations

from steepest.attacks.ascent import GradientAscent
from steepest.attacks.recipe import Recipe, recipe


@recipe("bim", needs="gradient", cost="steps × (F + B) + F", source="Kurakin, Goodfellow & Bengio 2017")
def bim(steps: int = 10, step: float = 1 / 8) -> Recipe:
    """Small gradient steps from x, each of the share `step` of the budget (1/255 where ε is 8/255)."""
    return Recipe(search=GradientAscent(steps, step))
