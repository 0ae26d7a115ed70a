"""Lipschitz constants from below: what a model really does between points of a region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import expand
from steepest.budgets.extents import euclidean_reach
from steepest.budgets.region import Region
from steepest.models.contract import Need, Question
from steepest.models.model import Model
from steepest.models.objectives import objective_of
from steepest.models.widened import in_float64

_START, _CORNERS = 1 << 20, 1 << 21
"""The examples' streams of uniform points and of corners."""

_NEAR = 1e-4
"""Points nearer to each other than this share of the reach tell more of rounding than of the model."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratios:
    """Lower bounds: no constant of the region is smaller, so no certificate that rests on one can be larger.

    Attributes:
        rivals: int64 [N, R], the classes k that were looked at, the nearest at x first.
        sampled: float64 [N, R], the largest ‖∇(z_y − z_k)‖₂ at the sampled points.
        ascended: float64 [N, R], the largest of those, of the gradients on the way of an ascent, and of
            |change of z_y − z_k|/‖p − q‖₂ between its points; at least `sampled`.
        whole_sampled: float64 [N], the largest ‖Jacobian‖₂ of y's output and the rivals'.
        whole_ascended: float64 [N], that, with ‖change of the outputs‖₂/‖p − q‖₂.
    """

    rivals: Tensor
    sampled: Tensor
    ascended: Tensor
    whole_sampled: Tensor
    whole_ascended: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """The model, around points whose differences of outputs are watched.

    Attributes:
        classes: int64 [N, 1 + R], y first.
        centred: whether outputs count less their mean: those of probabilities are known up to one number.
    """

    model: Model
    region: Region
    classes: Tensor
    centred: bool
    precision: torch.dtype

    def look(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs [N, 1 + R] and their gradients [N, 1 + R, d] at a point, float64."""
        margin = objective_of("margin")
        question = Question(
            point=point.to(self.precision), y=self.classes[:, 0], objective=margin, goal=margin.goal,
            need=Need.JACOBIAN, classes=self.classes,
        )  # fmt: skip
        answer = self.model.answer(question)
        assert answer.jacobian is not None
        outputs = answer.outputs.gather(1, self.classes).double()
        return outputs, answer.jacobian.flatten(2).double()

    def whole(self, rows: Tensor) -> Tensor:
        """Return rows [N, 1 + R, …] as the network's own norm sees them."""
        return rows - rows.mean(1, keepdim=True) if self.centred else rows


def ratios(
    model: Model,
    region: Region,
    y: Tensor,
    *,
    rivals: int = 9,
    samples: int = 16,
    steps: int = 10,
    seed: int = 0,
    centred: bool = False,
) -> Ratios:
    """Return how steep a model was found to be inside a region: (samples + 2·steps + 1)·(F + (1 + R)·B) an example.

    Sampled points are x, uniform ones and corners; the ascent starts at the steepest of them and steps along the
    gradient of the margin, forth and back, to where that is longer. Asked in float64 where the model has a twin there.

    Args:
        rivals: R at most, the classes nearest at x.

    Raises:
        ModelError: no gradient reaches the input.

    >>> import steepest as st
    >>> around = Region(st.L2(0.1), st.Box(0, 1), torch.tensor([[0.5, 0.5]]))
    >>> found = ratios(st.Model(lambda x: x * torch.tensor([3.0, 4.0])), around, torch.tensor([0]))
    >>> found.sampled, found.whole_ascended     # of 3x₁ − 4x₂, and of the map
    (tensor([[5.0000]], dtype=torch.float64), tensor([4.0000], dtype=torch.float64))
    """
    wide = in_float64(model, region.x) if len(y) else None
    precision = torch.float64 if wide is not None else region.x.dtype
    logits = model.logits(region.x).double()
    count = min(rivals, logits.shape[1] - 1)
    nearest = logits.scatter(1, y[:, None], -torch.inf).topk(count, dim=1).indices
    ground = _Ground(
        model=wide or model,
        region=region,
        classes=torch.cat([y[:, None], nearest], 1),
        centred=centred,
        precision=precision,
    )
    with ground.model.borrowed(seed):
        best = _Best.none(len(y), count, region.x)
        for point in _sampled(region, samples, seed):
            best.take(ground, point, *ground.look(point))
        sampled, whole = best.pairs.clone(), best.whole.clone()
        _ascend(ground, best, steps)
    return Ratios(rivals=nearest, sampled=sampled, ascended=best.pairs, whole_sampled=whole, whole_ascended=best.whole)


@final
@dataclass(slots=True, kw_only=True, eq=False)
class _Best:
    """The steepest points so far, and what they showed.

    Attributes:
        pairs, whole: the largest numbers, [N, R] and [N].
        point: where the steepest pair was steepest, and `outputs`, `gradient` its outputs and that pair's gradient.
    """

    pairs: Tensor
    whole: Tensor
    steepest: Tensor
    point: Tensor
    outputs: Tensor
    gradient: Tensor

    @classmethod
    def none(cls, count: int, rivals: int, x: Tensor) -> _Best:
        zero = x.new_zeros(count, dtype=torch.float64)
        flat = x.double().flatten(1)
        return cls(
            pairs=zero[:, None].repeat(1, rivals),
            whole=zero,
            steepest=zero - 1,
            point=x.clone(),
            outputs=zero[:, None].repeat(1, 1 + rivals),
            gradient=torch.zeros_like(flat),
        )

    def take(self, ground: _Ground, point: Tensor, outputs: Tensor, rows: Tensor) -> Tensor:
        """Count what was seen at a point; return where it is the steepest so far, bool [N]."""
        gaps = rows[:, :1] - rows[:, 1:]
        sizes = gaps.norm(dim=2)
        self.pairs = self.pairs.maximum(_trusted(sizes, ground.precision))
        whole = ground.whole(rows)
        gram = torch.linalg.eigvalsh(whole @ whole.mT)[:, -1].clamp_min(0).sqrt() if rows.numel() else self.whole
        self.whole = self.whole.maximum(_trusted(gram, ground.precision))
        top, which = sizes.max(1) if sizes.shape[1] else (self.steepest, self.steepest.long())
        better = top > self.steepest
        self.steepest = torch.where(better, top, self.steepest)
        chosen = gaps[torch.arange(len(gaps), device=gaps.device), which] if sizes.shape[1] else self.gradient
        self.gradient = torch.where(better[:, None], chosen, self.gradient)
        self.outputs = torch.where(better[:, None], outputs, self.outputs)
        self.point = torch.where(expand(better, point), point, self.point)
        return better

    def between(self, ground: _Ground, one: Tensor, other: Tensor, before: Tensor, after: Tensor) -> None:
        """Count the ratios of two points, whose outputs are known."""
        apart = (other.double() - one.double()).flatten(1).norm(dim=1)
        far = apart > _NEAR * euclidean_reach(ground.region)
        change, rounding = after - before, 64 * torch.finfo(ground.precision).eps * before.abs().amax(1)
        pair = (change[:, :1] - change[:, 1:]).abs() - rounding[:, None]
        whole = ground.whole(change).norm(dim=1) - rounding
        self.pairs = self.pairs.maximum(torch.where(far[:, None], pair / apart[:, None], 0.0))
        self.whole = self.whole.maximum(torch.where(far, whole / apart, 0.0))


def _trusted(sizes: Tensor, precision: torch.dtype) -> Tensor:
    """Return sizes less what rounding may have added, so that what is said from below is below."""
    return sizes * (1 - 64 * torch.finfo(precision).eps)


def _sampled(region: Region, samples: int, seed: int) -> Iterator[Tensor]:
    stream = Stream.of(seed, torch.arange(len(region.x), device=region.x.device))
    yield region.x
    for number in range(samples):
        if number % 2:
            yield region.corner(stream.split(_CORNERS), number)
        else:
            yield region.sample(stream.split(_START), number)


def _ascend(ground: _Ground, best: _Best, steps: int) -> None:
    """Step from the steepest points along their gradients to steeper ones; halve the step where there is none."""
    region = ground.region
    stride = euclidean_reach(region).clamp_max(torch.finfo(torch.float32).max) / 2
    for _ in range(steps):
        start, before = best.point, best.outputs
        size = best.gradient.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        along = (best.gradient * (stride / size)[:, None]).reshape(start.shape)
        better = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        for sign in (1.0, -1.0):
            point = region.project((start.double() + sign * along).to(start.dtype))
            after, rows = ground.look(point)
            best.between(ground, start, point, before, after)
            better |= best.take(ground, point, after, rows)
        stride = torch.where(better, stride, stride / 2)
