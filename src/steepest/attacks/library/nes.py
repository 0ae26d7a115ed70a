"""Gradient steps along gradients that natural evolution strategies estimate from scores."""

from __future__ import annotations

from steepest.attacks.ascent import GradientAscent, size_of
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.estimated import Estimated


@recipe("nes", needs="scores", cost="steps × (1 + 2 × samples) F + F", source="Ilyas et al. 2018")
def nes(
    steps: int = 50, samples: int = 50, sigma: float = 1e-3, step: float | None = None, momentum: float = 0.0
) -> Recipe:
    """Gradient steps from x, each gradient estimated from `samples` pairs of points ± σu around the point, u normal.

    A step is 2.5/steps of the budget if `step` is left out; σ is a share of the box's widest side (published:
    inputs in [0, 1]), in data units where the box is open. `momentum` is that of `mi-fgsm`.
    """
    return Recipe(
        search=GradientAscent(steps, size_of(step, steps), momentum), oracle=Estimated(samples, sigma, in_sides=True)
    )
