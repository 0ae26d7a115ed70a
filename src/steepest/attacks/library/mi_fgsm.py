"""Momentum iterative FGSM, and every combination of the parts that make points transfer."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe("mi-fgsm", needs="gradient", cost="steps × (F + B) + F; parts add theirs", source="Dong et al. 2018")
def mi_fgsm(
    steps: int = 10,
    momentum: float = 1.0,
    nesterov: bool = False,
    variance: int = 0,
    radius: float = 1.5,
    diversity: float = 0.0,
    resize: float = 0.9,
    kernel: int = 1,
    scales: int = 1,
) -> Recipe:
    """Gradient steps of 1/steps of the budget from x, along a running sum of normalised gradients.

    The other arguments are the parts of ni-, vmi-, di-, ti- and si-fgsm, and combine.
    """
    return momentum_recipe(
        steps,
        momentum,
        nesterov=nesterov,
        variance=variance,
        radius=radius,
        diversity=diversity,
        resize=resize,
        kernel=kernel,
        scales=scales,
    )
