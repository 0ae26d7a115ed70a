"""Diverse inputs iterative FGSM."""

from __future__ import annotations

from steepest.attacks.momentum import momentum_recipe
from steepest.attacks.recipe import Recipe, recipe


@recipe("di-fgsm", needs="gradient", cost="steps × (2 F + B) + F", source="Xie et al. 2019")
def di_fgsm(steps: int = 10, momentum: float = 1.0, diversity: float = 0.5, resize: float = 0.9) -> Recipe:
    """mi-fgsm with gradients through images that are resized and padded at random; images only.

    Each image, with probability `diversity`, is shrunk to at least the share `resize` of its size, and put at a
    random place of its old one, zeros around. The publication enlarges 299 pixels to 330 instead.
    """
    return momentum_recipe(steps, momentum, diversity=diversity, resize=resize)
