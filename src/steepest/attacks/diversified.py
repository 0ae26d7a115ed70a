"""Starts that differ in what the model answers, not only in the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

from torch import Tensor

from steepest.attacks.chain import Chain
from steepest.attacks.checks import whole
from steepest.attacks.contract import Ask, Problem, Search, State
from steepest.attacks.starts import STARTS, Start
from steepest.basis.errors import unknown
from steepest.basis.streams import Stream
from steepest.models.contract import Evaluation, Goal, Need
from steepest.models.goals import Never

ODI = "odi"
"""The name of the start that asks the model: a uniform point, then `Diversify`."""

_DIRECTION = 0x0D1
"""The examples' stream from which directions are drawn; starts draw from the streams themselves."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class RandomDirection:
    """The number wᵀz of the outputs z, where w is uniform in [−1, 1]^K, one per example, from `stream`."""

    stream: Stream

    @property
    def goal(self) -> Goal:
        """None."""
        return Never()

    def ascent(self, outputs: Tensor, y: Any) -> Tensor:
        """See `Objective`."""
        w = 2 * self.stream.uniform(0, (outputs.shape[1],)) - 1
        return (w.to(outputs.dtype) * outputs).sum(1)

    def value(self, outputs: Tensor, y: Any) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return type(self)(self.stream.rows(index))


@final
@dataclass(frozen=True, slots=True)
class Diversify:
    """Steps of the whole budget that raise wᵀz for a random direction w of the outputs, the same in every step.

    Source: Tashiro, Song & Ermon 2020 (output diversified initialization: 2 such steps).
    """

    steps: int = 2

    def __post_init__(self) -> None:
        whole("", "diversify", self.steps, 0, ", e.g. 2")

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return Ask(need=Need.GRADIENT, ascent=RandomDirection(problem.stream.split(_DIRECTION)))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        return problem.region.ascend(found.point, found.gradient, 1.0), state


def started(search: Search, start: str) -> tuple[Search, Start]:
    """Return a search and the function that starts it, for a start by name: one of `STARTS`, or "odi".

    Raises:
        UsageError: there is no such start; near matches are offered.
    """
    if start == ODI:
        return Chain(Diversify(), search), STARTS["uniform"]
    if start not in STARTS:
        raise unknown("start", start, [*STARTS, ODI])
    return search, STARTS[start]
