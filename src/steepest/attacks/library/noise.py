"""The search that needs no gradient at all: random points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.checks import whole
from steepest.attacks.contract import VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.contract import Evaluation


def random_point(problem: Problem, step: int) -> Tensor:
    """Return a uniform point of the region for even steps, a random corner of it for odd ones."""
    draw = problem.region.sample if step % 2 == 0 else problem.region.corner
    return draw(problem.stream, step)


@final
@dataclass(frozen=True, slots=True)
class RandomPoints:
    """Visit independent random points, uniform ones and corners in turn; the first is where the search starts."""

    steps: int

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        return random_point(problem, number + 1), state


@recipe("noise", needs="labels", cost="points × F", source="a control, Carlini et al. 2019")
def noise(points: int = 100) -> Recipe:
    """Random points of the region, uniform ones and corners in turn, without any gradient."""
    whole("noise", "points", points, 1)
    return Recipe(search=RandomPoints(points - 1), start=lambda problem, restart: random_point(problem, 0))
