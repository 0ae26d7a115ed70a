"""What all checks share: a model, some examples, and every measurement made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice, pose
from steepest.attacks.contract import AttackResult, Problem
from steepest.attacks.recipes import ATTACKS
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.diagnose.contract import NotRun
from steepest.landscape.terrain import Terrain
from steepest.models.contract import Answer, Evaluation, Question
from steepest.models.model import Model
from steepest.models.objectives import objective_of

T = TypeVar("T")

WHITE_BOX = ("fgsm", "pgd(steps=20)", "apgd(steps=20)")
"""The gradient searches whose union checks compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """What one rung of an audit did to all the examples that entered it, at the largest ε.

    Attributes:
        free: it needs no gradient, or goes where gradients do not lead.
    """

    name: str
    entered: int
    broken: int
    free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What an audit has measured on all its examples, so that checks need not measure it again.

    Attributes:
        count, clean: examples, and those that are right at x.
        rungs: at the largest ε, in order.
        curve: (ε in units of the largest, accuracy under FGSM) along the grid.
    """

    count: int
    clean: int
    rungs: tuple[Climbed, ...]
    curve: tuple[tuple[float, float], ...]


@final
class Probe:
    """A model under examination on N examples inside one budget.

    Attributes:
        model: every question to it is counted in `asked`.
        objective: what the audit ascends; checks that compare objectives name their own.
        traces: what an audit knows already; None outside of one.
        seconds: for searches without gradients, all together.
        x, y, ids, region, seed: as everywhere.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        budget: Budget,
        *,
        objective: ObjectiveChoice = "scaled-ce",
        ids: Tensor | None = None,
        seed: int = 0,
        seconds: float = 20.0,
        traces: Traces | None = None,
    ) -> None:
        self.asked = Asked()
        self.model = model.asked_by(self.asked)
        self.x, self.y, self.budget, self.seed = x, y, budget, seed
        self.objective = objective
        self.ids = torch.arange(len(y), device=x.device) if ids is None else ids
        self.region = Region(budget.fitted(tuple(x.shape)), model.box, x)
        self.seconds, self.traces = seconds, traces
        self._known: dict[Hashable, Any] = {}

    @property
    def count(self) -> int:
        """The number N of examples."""
        return int(self.y.numel())

    @property
    def outputs(self) -> Tensor:
        """The answers at x, [N, K]."""
        return self.once("outputs", lambda: self.model.logits(self.x))

    @property
    def right(self) -> Tensor:
        """bool [N]: predicted as labelled at x; attacks on the others say nothing."""
        return self.outputs.argmax(1) == self.y

    def once(self, key: Hashable, measure: Callable[[], T]) -> T:
        """Return what `measure` returns, or returned when another check asked for `key`."""
        if key not in self._known:
            self._known[key] = measure()
        found: T = self._known[key]
        return found

    def found(self, call: str, objective: str) -> bool:
        """Return whether `attacked` knows what this attack of the model finds."""
        return self.knows(("attacked", call, objective, ""))

    def knows(self, key: Hashable) -> bool:
        """Return whether `key` is measured."""
        return key in self._known

    def terrain(self, objective: ObjectiveChoice = "margin", model: Model | None = None) -> Terrain:
        """Return the loss around x, of the model or of a relative of it."""
        return Terrain(
            model=model or self.model,
            objective=objective_of(objective),
            region=self.region,
            y=self.y,
            stream=Stream.of(self.seed, self.ids),
        )

    def at_x(self, objective: str = "margin") -> Evaluation:
        """Return the answer with the gradient at x.

        Raises:
            ModelError: no gradient reaches x.
        """
        return self.once(("at x", objective), lambda: self.terrain(objective).gradient(self.x))

    def problem(self, objective: ObjectiveChoice = "scaled-ce", model: Model | None = None) -> Problem:
        """Return what attacks are given."""
        asked = model or self.model
        posed = pose(asked, self.x, self.y, self.budget, objective=objective, seed=self.seed, ids=self.ids)
        return replace(posed, clean=self.outputs)

    def attacked(
        self, call: str, objective: str = "scaled-ce", model: Model | None = None, name: str = ""
    ) -> AttackResult:
        """Return what a catalogued attack finds; a relative of the model needs a `name` of its own."""
        key = ("attacked", call, objective, name)
        return self.once(key, lambda: ATTACKS.build(call).run(self.problem(objective, model), self.seed))

    def broken(self, call: str, objective: str = "scaled-ce") -> Tensor:
        """Return bool [N]: right at x, and broken by a catalogued attack."""
        return self.right & self.attacked(call, objective).won

    @property
    def white_box(self) -> Tensor:
        """bool [N]: right at x, and broken by some gradient search of `WHITE_BOX`.

        Raises:
            ModelError: no gradient reaches x.
        """
        return self.once("white box", lambda: torch.stack([self.broken(call) for call in WHITE_BOX]).any(0))

    @property
    def pace(self) -> float:
        """Examples that the model answers in a second, from one forward over all."""

        def timed() -> float:
            self.model.logits(self.x[:2])  # one alone is refused by batch normalisation in training mode
            begin = time.perf_counter()
            float(self.model.logits(self.x).double().nansum())
            return self.count / max(time.perf_counter() - begin, 1e-6)

        return self.once("pace", timed)

    def few(self, passes: float, *, least: int) -> int:
        """Return how many examples `passes` forwards each can be asked for within half of the probe's seconds; a slow
        model's dear checks look at fewer, but at `least` so many.
        """
        return max(least, int(self.seconds / 2 * self.pace / passes))

    def require_right(self, least: int = 1) -> Tensor:
        """Return the rows that are right at x.

        Raises:
            NotRun: there are fewer than `least`.
        """
        rows = self.right.nonzero().squeeze(1)
        if rows.numel() < least:
            raise NotRun(f"only {rows.numel()} of {self.count} examples are right at x; {least} are needed")
        return rows


@final
class Asked:
    """An oracle that counts the passes of every question, and changes nothing."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        found = ask(question)
        rows = found.won
        self.forwards += int((torch.zeros_like(rows, dtype=torch.int64) + found.forwards).sum())
        self.backwards += int((torch.zeros_like(rows, dtype=torch.int64) + found.backwards).sum())
        return found
