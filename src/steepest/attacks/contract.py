"""What a search is given, what it promises, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Protocol, Self

from torch import Tensor

from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Goal, Labels, Need, Objective
from steepest.models.model import Model

State = dict[str, Tensor]
"""What a search remembers between steps; every tensor has leading axis N, so that finished rows can leave."""


class Status(IntEnum):
    """How the search of one example ended; a number that could not be measured is never a success of the model.

    >>> Status(2).name
    'ZERO_GRADIENT'
    """

    OK = 0
    """The goal was reached, or there was none to reach."""
    EXHAUSTED = 1
    """All steps were spent and the goal was not reached."""
    ZERO_GRADIENT = 2
    """Not reached, and at least half of the gradients asked for were exactly zero: the search was blind."""
    NONFINITE = 3
    """Not reached, and an output or a gradient was NaN or infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything that a search may know: the model, what should get worse, what counts as reached, and where.

    Attributes:
        y: labels [N], or whatever the objective understands.
        stream: the examples' random numbers.
        drop_solved: examples whose goal is reached leave at once; otherwise the search goes on to larger values.
    """

    model: Model
    objective: Objective
    goal: Goal
    region: Region
    y: Labels
    stream: Stream
    drop_solved: bool = True

    def rows(self, index: Tensor) -> Self:
        """Return the problem of the examples that `index` selects."""
        return replace(
            self,
            objective=self.objective.rows(index),
            goal=self.goal.rows(index),
            region=self.region.rows(index),
            y=None if self.y is None else self.y[index],
            stream=self.stream.rows(index),
        )


class Search(Protocol):
    """A rule that proposes the next point from what the model answered at the last one; it never asks itself."""

    @property
    def need(self) -> Need:
        """What `step` wants to know of a point."""

    @property
    def steps(self) -> int:
        """How many questions it asks; the loop judges the last point too."""

    def init(self, problem: Problem, point: Tensor) -> State:
        """Return the state before the first answer; `point` is where the search starts."""

    def step(self, problem: Problem, evaluation: Evaluation, state: State) -> tuple[Tensor, State]:
        """Return the next point, inside the region, and the next state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """The outcome of an attack, one row per example, in the order of the input.

    Attributes:
        point: the worst point found, exactly feasible; the clean input where nothing better was found.
        won: bool, the goal is reached at `point`.
        gauge: size of point − x in units of the budget, at most 1.
        value: the objective's value at `point`; NaN where it was never finite.
        outputs: the model's answer at `point`, [N, K].
        forwards, backwards: int64, how often the model was asked about the example.
        status: `Status` as int64.
        recipe: the call that made it, with every argument.
        seed: of the random streams.

    >>> import steepest as st
    >>> f = st.Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> result = st.attack("bim(steps=5)", f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), st.Linf(0.1))
    >>> result.won, result.backwards, result.recipe
    (tensor([True]), tensor([5]), 'bim(steps=5, step=0.125)')
    """

    point: Tensor
    won: Tensor
    gauge: Tensor
    value: Tensor
    outputs: Tensor
    forwards: Tensor
    backwards: Tensor
    status: Tensor
    recipe: str
    seed: int

    def rows(self, index: Tensor) -> Self:
        """Return the result of the examples that `index` selects."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            kept[field.name] = value[index] if isinstance(value, Tensor) else value
        return replace(self, **kept)
