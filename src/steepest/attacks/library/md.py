"""Margin Decomposition: follow the two terms of the margin one at a time, then the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from steepest.attacks.checks import whole
from steepest.attacks.contract import Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.starts import uniform
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import Custom, Margin, checked


@final
@dataclass(frozen=True, slots=True)
class MarginDecomposition:
    """Ascend one term of the margin max over k ≠ y of z_k − z_y for half of the steps, then the margin itself.

    With C = steps/2: the first step ascends z_y; then until step C even runs ascend −z_y and odd runs the best
    rival's output. In both halves the step falls from twice the budget to 0 as 1 + cos(π·t/(steps − C)).

    Where one term's gradient hides the other's, the gradient of the margin is small or misleading although
    neither term's is.
    """

    steps: int

    def __post_init__(self) -> None:
        whole("md", "steps", self.steps, 0)

    @property
    def change(self) -> int:
        """The first step that ascends the margin."""
        return self.steps // 2

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        if number >= self.change:
            return Ask(need=Need.GRADIENT, ascent=Margin())
        term = _own if number == 0 else (_rival if problem.restart % 2 else _own_falling)
        return Ask(need=Need.GRADIENT, ascent=Custom(term))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        return problem.region.ascend(found.point, found.gradient, self.size(number)), state

    def size(self, number: int) -> float:
        """Return the size of a step as a share of the budget."""
        since = number if number <= self.change else number - self.change
        return 1 + math.cos(math.pi * (since - 1) / (self.steps - self.change))


def _own(outputs: Tensor, y: Any) -> Tensor:
    return outputs.gather(1, checked(y, outputs)[:, None]).squeeze(1)


def _own_falling(outputs: Tensor, y: Any) -> Tensor:
    return -_own(outputs, y)


def _rival(outputs: Tensor, y: Any) -> Tensor:
    return outputs.scatter(1, checked(y, outputs)[:, None], -math.inf).amax(1)


@recipe("md", needs="gradient", cost="2 × restarts × (steps × (F + B) + F)", source="Ma et al. 2020")
def md(steps: int = 50, restarts: int = 1) -> Recipe:
    """Margin Decomposition: two runs per restart, one led by the label's output first, the other by its rivals'.

    Starts are uniform over the part of the budget inside the box; the published ones are not clipped into it.
    """
    whole("md", "restarts", restarts, 1)
    return Recipe(search=MarginDecomposition(steps), start=uniform, restarts=2 * restarts, untargeted=True)
