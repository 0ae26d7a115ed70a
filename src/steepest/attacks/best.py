"""The best point of each example so far."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from steepest.attacks.contract import Prefer, Problem, Status
from steepest.basis.tensors import expand, seen
from steepest.models.contract import Evaluation, added


@final
@dataclass(slots=True)
class Best:
    """The best point of each example so far, and what finding it has cost; one row per example, updated in place.

    A success is better than a failure. Among failures the larger value is better; among successes the larger value,
    or the smaller gauge, as the problem prefers. A value that is not finite is never better.

    Attributes:
        gauge: of `point`; measured only where the problem prefers the smallest.
        radius: size in data units of the smallest success met anywhere; likewise.
        asked, zero: gradients asked for, and those that were exactly zero.
        unconfirmed: successes that the model searched in claimed and the model judged by did not repeat.
    """

    point: Tensor
    won: Tensor
    value: Tensor
    outputs: Tensor | None
    gauge: Tensor
    radius: Tensor
    forwards: Tensor
    backwards: Tensor
    asked: Tensor
    zero: Tensor
    nonfinite: Tensor
    unconfirmed: Tensor

    @classmethod
    def none_yet(cls, x: Tensor) -> Best:
        """Return the state before the first question: the clean input, value −∞."""
        # Few operations: on a GPU each is a launch before the first question.
        forwards, backwards, asked, zero, unconfirmed = torch.zeros(
            5, x.shape[0], dtype=torch.int64, device=x.device
        ).unbind()
        won, nonfinite = torch.zeros(2, x.shape[0], dtype=torch.bool, device=x.device).unbind()
        nothing = torch.full(x.shape[:1], torch.inf, dtype=torch.float64, device=x.device)
        return cls(
            x, won, -nothing, None, nothing, nothing, forwards, backwards, asked, zero, nonfinite, unconfirmed
        )  # fmt: skip

    def rows(self, index: Tensor) -> Best:
        """Return the state of the examples that `index` selects."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            held = getattr(self, field.name)
            kept[field.name] = None if held is None else held[index]
        return Best(**kept)

    def take(self, index: Tensor, part: Best) -> None:
        """Write the rows `part` into the places `index`."""
        if part.outputs is not None and self.outputs is None:
            self.outputs = part.outputs.new_full((self.won.shape[0], part.outputs.shape[1]), torch.nan)
        whole = index.shape == self.won.shape
        for field in fields(self):
            mine, new = getattr(self, field.name), getattr(part, field.name)
            if new is not None:
                setattr(self, field.name, new if whole else mine.index_copy(0, index, new.to(mine.dtype)))

    def spend(self, found: Evaluation, points: int = 1) -> None:
        """Count what an answer about `points` points per example has cost."""
        for name in ("forwards", "backwards", "unconfirmed"):
            count = added(getattr(found, name), points)
            if isinstance(count, Tensor) or count:
                getattr(self, name).add_(count)

    def learn(self, problem: Problem, found: Evaluation) -> None:
        """Take in what was answered about one point of every row."""
        self.nonfinite |= ~found.finite
        if found.size is not None:
            self.asked += 1
            self.zero += (found.size == 0) & found.finite
        value, won, better = found.value.double(), found.won, None
        if problem.prefer is Prefer.SMALLEST_GAUGE:
            gauge = problem.region.gauge(found.point)
            size = torch.where(won, problem.region.norm(found.point), torch.inf)
            self.radius = torch.minimum(self.radius, size)
            won = won & (gauge <= 1)
            rising = ~won & ~self.won & (value > self.value) & (gauge <= 1)
            better = (won & (~self.won | (gauge < self.gauge))) | rising
            self.gauge = torch.where(better, gauge, self.gauge)
        else:
            better = (won > self.won) | ((won == self.won) & (value > self.value))
        self._replace(better, found.point, found.outputs, value)
        self.won = self.won | won

    def merge(self, problem: Problem, other: Best) -> None:
        """Take in another search of the same examples; failures are ranked by the problem's own objective."""
        for name in ("forwards", "backwards", "asked", "zero", "unconfirmed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.nonfinite = self.nonfinite | other.nonfinite
        self.radius = torch.minimum(self.radius, other.radius)
        if other.outputs is None:
            return
        seen = other.value > -torch.inf
        value = problem.objective.value(other.outputs, problem.y).double()
        value = torch.where(seen | other.won, value.nan_to_num(-torch.inf), -torch.inf)
        if self.outputs is None:  # nothing is known here yet
            better = other.won | (value > -torch.inf)
        else:
            small = problem.prefer is Prefer.SMALLEST_GAUGE
            rival = other.gauge < self.gauge if small else value > self.value
            better = (other.won > self.won) | (other.won & self.won & rival) | (~self.won & (value > self.value))
        self.gauge = torch.where(better, other.gauge, self.gauge)
        self._replace(better, other.point, other.outputs, value)
        self.won = self.won | other.won

    def _replace(self, better: Tensor, point: Tensor, outputs: Tensor, value: Tensor) -> None:
        if seen(better):
            # Points are never changed in place, so keeping a reference is keeping the point.
            self.point, self.outputs, self.value = point, outputs, value
            return
        if better.device.type != "cpu" or bool(better.any()):
            self.point = torch.where(expand(better, point), point, self.point)
        previous = outputs if self.outputs is None else self.outputs
        self.outputs = torch.where(better[:, None], outputs, previous)
        self.value = torch.where(better, value, self.value)

    def status(self) -> Tensor:
        """Return `Status` as int64 [N]."""
        status = torch.full_like(self.forwards, Status.EXHAUSTED)
        status.masked_fill_((self.zero > 0) & (2 * self.zero >= self.asked), Status.ZERO_GRADIENT)
        return status.masked_fill_(self.nonfinite, Status.NONFINITE).masked_fill_(self.won, Status.OK)
