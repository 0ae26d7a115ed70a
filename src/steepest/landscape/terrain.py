"""The ground that is looked at: a model, an objective, and the points that a budget allows around x."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.basis.rounding import inside
from steepest.basis.streams import Stream
from steepest.basis.tensors import inner
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Labels, Need, Objective, Question
from steepest.models.model import Model
from steepest.models.objectives import objective_of
from steepest.models.widened import in_float64

_ROWS = 512
"""So many points are asked at once when one example has several, however few examples there are."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terrain:
    """The objective of N examples as a function of the point; everything in this room asks through it.

    The model is asked as it is; `with terrain.model.borrowed():` around many questions saves its state once.

    Args:
        objective: what is differentiated and compared. Where a slope is held against a change of value (segments,
            differences, linearity, curvature) its ascent must be its value up to a constant: `Margin`,
            `CrossEntropy`, not `ScaledCrossEntropy`.
        region: where the points of interest are, around x [N, *features].
        y: labels [N], or whatever the objective understands.
        stream: the examples' random numbers.
        precision: in which the model is asked; None: that of x.

    >>> from steepest.budgets.linf import Linf
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> Terrain.around(Model(lambda p: 2 * p), x, y, Linf(0.25)).gradient(x).gradient
    tensor([[-2.,  2.]])
    """

    model: Model
    objective: Objective
    region: Region
    y: Labels
    stream: Stream
    precision: torch.dtype | None = None

    @staticmethod
    def around(
        model: Model, x: Tensor, y: Labels, budget: Budget, *, objective: str | Objective = "margin", seed: int = 0
    ) -> Terrain:
        """Return the terrain around x [N, *features], inside the model's box; its streams are 0 … N − 1."""
        return Terrain(
            model=model,
            objective=objective_of(objective),
            region=Region(budget, model.box, x),
            y=y,
            stream=Stream.of(seed, torch.arange(len(x), device=x.device)),
        )

    @property
    def x(self) -> Tensor:
        """The examples, [N, *features]."""
        return self.region.x

    def rows(self, index: Tensor) -> Terrain:
        """Return the terrain of the examples that `index` selects; an example may be selected several times."""
        return Terrain(
            model=self.model,
            objective=self.objective.rows(index),
            region=self.region.rows(index),
            y=None if self.y is None else self.y[index],
            stream=self.stream.rows(index),
            precision=self.precision,
        )

    def with_objective(self, objective: Objective) -> Terrain:
        """Return the same ground under another objective."""
        return replace(self, objective=objective)

    def value(self, point: Tensor) -> Evaluation:
        """Return the model's answer at `point` [N, *features]: one forward."""
        return self._asked(point, Need.VALUE)

    def gradient(self, point: Tensor) -> Evaluation:
        """Return the model's answer and the objective's gradient at `point`: one forward and one backward.

        Raises:
            ModelError: no gradient reaches the input.
        """
        return self._asked(point, Need.GRADIENT)

    def precise(self) -> Terrain:
        """Return the same ground asked in float64 where the network has a twin there, itself elsewhere.

        Only the questions change: region and x keep their precision. One forward of each to compare them.
        """
        if (self.precision or self.x.dtype) == torch.float64:
            return self
        wide = in_float64(self.model, self.x)
        return self if wide is None else replace(self, model=wide, precision=torch.float64)

    def values(self, points: Tensor) -> Tensor:
        """Return the objective at several points of each example, [N, P, *features] → float64 [N, P]: P forwards."""
        found = [part._asked(asked, Need.VALUE).value.double() for part, asked in self._chunks(points)]
        return self._joined(found, points)

    def slopes(self, points: Tensor, direction: Tensor) -> Tensor:
        """Return ⟨∇(point), direction⟩ at several points of each example, float64 [N, P], NaN where not finite.

        P forwards and backwards. `direction` is one for each example, [N, *features].
        """
        found = []
        for part, asked in self._chunks(points):
            answer = part._asked(asked, Need.GRADIENT)
            along = direction.repeat_interleave(len(asked) // max(1, len(self.x)), 0)
            found.append(inner(gradient_of(answer), along).masked_fill(~answer.finite, torch.nan))
        return self._joined(found, points)

    def into_box(self, point: Tensor) -> Tensor:
        """Return `point`, in the precision of x, with every coordinate that leaves the box put on its bound."""
        lower, upper = self.region.box.bounds(self.x)
        return torch.clamp(
            point.to(self.x.dtype), inside(lower, self.x, upper=False), inside(upper, self.x, upper=True)
        )

    def _asked(self, point: Tensor, need: Need) -> Evaluation:
        return self.model.answer(
            Question(
                point=point.to(self.precision or self.x.dtype),
                y=self.y,
                objective=self.objective,
                goal=self.objective.goal,
                need=need,
                stream=self.stream,
                region=self.region,
            )
        )

    def _chunks(self, points: Tensor) -> list[tuple[Terrain, Tensor]]:
        """Return the terrain and the points of each question, the points of one example next to each other."""
        count, each = points.shape[0], max(1, _ROWS // max(1, points.shape[0]))
        index = torch.arange(count, device=points.device)
        return [
            (self.rows(index.repeat_interleave(part.shape[1])), part.flatten(0, 1))
            for part in torch.split(points, each, 1)
        ]

    def _joined(self, found: list[Tensor], points: Tensor) -> Tensor:
        count = points.shape[0]
        if not count or not found:
            return points.new_zeros(points.shape[:2], dtype=torch.float64)
        return torch.cat([part.reshape(count, -1) for part in found], 1)


def gradient_of(answer: Evaluation) -> Tensor:
    """Return the gradient of an answer that was asked for one."""
    assert answer.gradient is not None
    return answer.gradient


def between(x: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Return the points x + t·(end − x) for each share t, float64 [N, P, *features].

    >>> between(torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([0.25, 1.0])).flatten()
    tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    start, move = x.double()[:, None], (end.double() - x.double())[:, None]
    return start + shares.double().to(x.device).reshape(-1, *[1] * (x.ndim - 1)) * move
