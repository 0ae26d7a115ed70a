"""What a search is given, what it promises, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum, IntEnum
from typing import Any, Protocol, Self

from torch import Tensor

from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Goal, Labels, Need, Objective, Question
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


class Prefer(Enum):
    """Which of two points is the better one: any success beats any failure, then this decides."""

    LARGEST_VALUE = "largest value"
    """The search ends at the first success, or goes on to larger values."""
    SMALLEST_GAUGE = "smallest gauge"
    """Among successes the smaller one; successes beyond the budget are remembered by their radius alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything that a search may know: the model, what should get worse, what counts as reached, and where.

    Attributes:
        y: labels [N], or whatever the objective understands.
        stream: the examples' random numbers.
        drop_solved: examples whose goal is reached leave at once; otherwise the search goes on to larger values.
        prefer: which points are kept.
        clean: the model's answer at x, [N, K], where it is known already.
        worst: the worst points known, [N, *features], where searches with the start "worst" begin.
        aims: int64 [N, R], the classes to aim at, the nearest first, where their order is known already.
        restart: the number of the run.
    """

    model: Model
    objective: Objective
    goal: Goal
    region: Region
    y: Labels
    stream: Stream
    drop_solved: bool = True
    prefer: Prefer = Prefer.LARGEST_VALUE
    clean: Tensor | None = None
    worst: Tensor | None = None
    aims: Tensor | None = None
    restart: int = 0

    def question(self, point: Tensor, ask: Ask, number: int = 0) -> Question:
        """Return question `number` of a search, about one point of each example."""
        return Question(
            point=point,
            y=self.y,
            objective=self.objective,
            goal=self.goal,
            need=ask.need,
            ascent=ask.ascent,
            classes=ask.classes,
            stream=self.stream,
            step=number,
            region=self.region,
        )

    def gradient(self, point: Tensor) -> Evaluation:
        """Ask for the gradient at one point of each example, by the model's oracles."""
        return self.model.answer(self.question(point, GRADIENT))

    def rows(self, index: Tensor) -> Self:
        """Return the problem of the examples that `index` selects."""
        return replace(
            self,
            objective=self.objective.rows(index),
            goal=self.goal.rows(index),
            region=self.region.rows(index),
            y=None if self.y is None else self.y[index],
            stream=self.stream.rows(index),
            clean=None if self.clean is None else self.clean[index],
            worst=None if self.worst is None else self.worst[index],
            aims=None if self.aims is None else self.aims[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a search wants to know of the point that it has proposed.

    Attributes:
        ascent: what is differentiated, if not the problem's objective; points are always ranked by that.
        classes: int64 [N, R]: the outputs whose gradients a Jacobian consists of.
        judged: of several points per example, how many of the first may become the result; the others only inform,
            and may lie outside the region. None: all.
    """

    need: Need = Need.VALUE
    ascent: Objective | None = None
    classes: Tensor | None = None
    judged: int | None = None


VALUE, GRADIENT = Ask(), Ask(need=Need.GRADIENT)
"""The two questions that most searches ask, always."""


class Search(Protocol):
    """A rule that proposes the next point from what the model answered at the last one; it never asks itself."""

    @property
    def steps(self) -> int:
        """How many questions it asks; the loop judges the last point too."""

    def init(self, problem: Problem, point: Tensor) -> State:
        """Return the state before the first answer; `point` is where the search starts."""

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """Return what question `number` (from 0) is; the same for all examples."""

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """Return the next point and the next state, from the answer to question `number`.

        A point is [N, *features], inside the region (for smallest-gauge searches: inside `region.loose()`), or
        [N, Q, *features]: Q points per example, whose answer then has the leading axes [N, Q].
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """The outcome of an attack, one row per example, in the order of the input.

    Attributes:
        point: the worst point found, exactly feasible; the clean input where nothing better was found.
        won: bool, the goal is reached at `point`.
        gauge: size of point − x in units of the budget, at most 1.
        radius: float64, size in data units of the smallest success met, also beyond the budget; ∞ where none.
        value: the objective's value at `point`; NaN where it was never finite.
        outputs: the model's answer at `point`, [N, K].
        forwards, backwards: int64, how often the model was asked about the example.
        status: `Status` as int64.
        recipe: the call that made it, with every argument.
        unconfirmed: int64, successes in a twin that the model itself did not repeat; none where it is asked itself.
        seed: of the random streams.
        notes: what a reader must know, e.g. which objective took the place of one that does not exist for K = 2.

    >>> import steepest as st
    >>> f = st.Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> result = st.attack("bim(steps=5)", f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), st.Linf(0.1))
    >>> result.won, result.backwards, result.recipe
    (tensor([True]), tensor([5]), 'bim(steps=5, step=0.125)')
    """

    point: Tensor
    won: Tensor
    gauge: Tensor
    radius: Tensor
    value: Tensor
    outputs: Tensor
    forwards: Tensor
    backwards: Tensor
    status: Tensor
    unconfirmed: Tensor
    recipe: str
    seed: int
    notes: tuple[str, ...] = ()

    def rows(self, index: Tensor) -> Self:
        """Return the result of the examples that `index` selects."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            kept[field.name] = value[index] if isinstance(value, Tensor) else value
        return replace(self, **kept)


class Attack(Protocol):
    """What the catalogue holds: something that turns a problem into a result. Most are a `Recipe`."""

    @property
    def call(self) -> str:
        """The catalogue's call that makes it again, with every argument."""

    @property
    def needs(self) -> str:
        """What the model must answer: "gradient", "scores" or "labels"."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The kinds of budget that it serves; none named: all."""

    @property
    def is_fgsm(self) -> bool:
        """Whether it is the one jump from x, whose gradient serves every ε."""

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """Attack every example of the problem."""
