"""The Fast Gradient Sign Method: one step to the maximiser of the linearised objective."""

from __future__ import annotations

from steepest.attacks.ascent import Jump
from steepest.attacks.recipe import Recipe, recipe


@recipe("fgsm", needs="gradient", cost="1 F + 1 B, and 1 F to judge", source="Goodfellow, Shlens & Szegedy 2015")
def fgsm() -> Recipe:
    """One step to the maximiser of the linearised objective: x + extreme(∇), in any budget."""
    return Recipe(search=Jump())
