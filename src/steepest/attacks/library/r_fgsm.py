"""FGSM from a random corner."""

from __future__ import annotations

from torch import Tensor

from steepest.attacks.ascent import GradientAscent
from steepest.attacks.checks import refused
from steepest.attacks.contract import Problem
from steepest.attacks.recipe import Recipe, recipe


@recipe("r-fgsm", needs="gradient", cost="1 F + 1 B, and 1 F to judge", source="Tramèr et al. 2018")
def r_fgsm(noise: float = 0.5) -> Recipe:
    """A random corner of the share `noise` of the budget, then one gradient step of the rest."""
    if not 0 <= noise < 1:
        raise refused("r-fgsm", "noise", noise, "it is a share of the budget, from 0 up to below 1")

    def start(problem: Problem, restart: int) -> Tensor:
        return problem.region.scaled(noise).corner(problem.stream, 0)

    return Recipe(search=GradientAscent(1, 1 - noise), start=start)
