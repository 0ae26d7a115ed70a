"""The Frank-Wolfe method: steps towards the extreme point, without projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.checks import whole
from steepest.attacks.contract import GRADIENT, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class FrankWolfe:
    """Move p ← p + γ(extreme(∇) − p) with γ = 2/(t + 2), t = 0, 1, ...

    The first step has γ = 1: it is the one of FGSM. A convex region holds every such point; the projection at the
    end of a step takes the rounding away there, and brings the point back into a region that is not convex.
    """

    steps: int

    def __post_init__(self) -> None:
        whole("frank-wolfe", "steps", self.steps, 0)

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        corner = problem.region.extreme(found.gradient)
        return problem.region.project(found.point.lerp(corner, 2 / (number + 2))), state


@recipe("frank-wolfe", needs="gradient", cost="steps × (F + B) + F", source="Frank & Wolfe 1956; Chen et al. 2020")
def frank_wolfe(steps: int = 20) -> Recipe:
    """Steps from x towards the extreme point of the linearised objective, the share 2/(t + 2) of the way each."""
    return Recipe(search=FrankWolfe(steps))
