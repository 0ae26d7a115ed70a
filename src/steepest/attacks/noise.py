"""The search that needs no gradient at all: random points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from steepest.attacks.contract import Problem, State
from steepest.models.contract import Evaluation, Need


def random_point(problem: Problem, step: int) -> Tensor:
    """Return a uniform point of the region for even steps, a random corner of it for odd ones."""
    draw = problem.region.sample if step % 2 == 0 else problem.region.corner
    return draw(problem.stream, step)


@final
@dataclass(frozen=True, slots=True)
class RandomPoints:
    """Visit independent random points, uniform ones and corners in turn; the first is where the search starts."""

    steps: int
    need: ClassVar[Need] = Need.VALUE

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: how many points each example has seen."""
        return {"seen": problem.stream.keys.new_ones(point.shape[0])}

    def step(self, problem: Problem, evaluation: Evaluation, state: State) -> tuple[Tensor, State]:
        """See `Search.step`."""
        seen = int(state["seen"][0])
        return random_point(problem, seen), {"seen": state["seen"] + 1}
