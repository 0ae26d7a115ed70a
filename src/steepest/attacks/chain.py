"""One search after another, within one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.contract import Ask, Problem, Search, State
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """Let `first` ask its questions, then let `second` start where `first` ended.

    A search of no steps passes its start on: Chain(first, second) is then the other one.
    """

    first: Search
    second: Search

    @property
    def steps(self) -> int:
        """See `Search.steps`: those of both."""
        return self.first.steps + self.second.steps

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the state of whichever search is next."""
        return (self.first if self.first.steps else self.second).init(problem, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        before = self.first.steps
        if number < before:
            return self.first.ask(problem, state, number)
        return self.second.ask(problem, state, number - before)

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        before = self.first.steps
        if number >= before:
            return self.second.step(problem, found, state, number - before)
        point, state = self.first.step(problem, found, state, number)
        return point, (self.second.init(problem, point) if number == before - 1 else state)
