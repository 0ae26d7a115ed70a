"""Gradients averaged over a neighbourhood: for models whose gradient at one point says little about the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.models.averages import costs, with_mean_slopes
from steepest.models.contract import Answer, Evaluation, Need, Question


@final
@dataclass(frozen=True, slots=True)
class Averaged:
    """The oracle whose gradient is the mean over `draws` uniform points of the budget, `radius` times as large.

    That is the gradient of the loss smoothed by a uniform kernel, which exists where the loss itself jumps. What
    judges a point is the model's answer at the point itself. A question that does not say where points may move is
    passed on as it is.

    Args:
        draws: points for each question; each costs a forward and a backward.
        radius: in units of the budget.

    Raises:
        UsageError: no positive whole number of draws, no positive radius.

    Source: Athalye, Carlini & Wagner 2018, on randomly shattered gradients; Smilkov et al. 2017, SmoothGrad.

    >>> Averaged(draws=0)
    Traceback (most recent call last):
    steepest.basis.errors.UsageError: averaged: draws=0 is not allowed; give a whole number of at least 1.
    """

    draws: int = 10
    radius: float = 0.25

    def __post_init__(self) -> None:
        if not isinstance(self.draws, int) or self.draws < 1:
            raise UsageError(f"averaged: draws={self.draws!r} is not allowed; give a whole number of at least 1.")
        if not self.radius > 0:
            raise UsageError(f"averaged: radius={self.radius!r} is not allowed; give a positive share of the budget.")

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        region = question.region
        if question.need is Need.VALUE or region is None:
            return ask(question)
        parts = [ask(_moved(question, self._delta(question, region, draw))) for draw in range(self.draws)]
        plain = ask(replace(question, need=Need.VALUE))
        return replace(with_mean_slopes(plain, parts), **costs([*parts, plain]))

    def _delta(self, question: Question, region: Region, draw: int) -> Tensor:
        """Return displacements from the question's points, inside the box."""
        point = question.point
        stream = question.stream or Stream.of(0, torch.zeros(len(point), dtype=torch.int64, device=point.device))
        around = Region(region.budget.scaled(self.radius), region.box, point)
        return around.sample(stream.split(draw), question.step) - point


def _moved(question: Question, delta: Tensor) -> Question:
    first = question.view
    return replace(question, view=lambda point: (point if first is None else first(point)) + delta)
