"""What searches for the smallest perturbation share: decision boundaries as planes, and the margin as an ascent."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from steepest.attacks.contract import Problem
from steepest.attacks.recipe import likeliest_wrong
from steepest.basis.tensors import expand
from steepest.budgets.reach import slope
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Objective
from steepest.models.objectives import DLR, CrossEntropy, DLROrMargin, Margin, ScaledCrossEntropy, Targeted


def put(region: Region, wide: Tensor) -> Tensor:
    """Return the float64 position `wide` in the precision of x, inside the box, with frozen coordinates at x."""
    return region.loose().project(wide.to(region.x.dtype))


def farthest(region: Region) -> Tensor:
    """Return the corner of the box that is farthest from x, as far as the budget lets coordinates move at all."""
    lower, upper = region.loose().bounds
    return torch.where(upper - region.x > region.x - lower, upper, lower)


def margin_of(objective: Objective) -> Objective:
    """Return the margin that stands for a classifier's objective, towards the same target; any other as it is.

    >>> margin_of(ScaledCrossEntropy()), margin_of(Targeted("ce", 3))
    (Margin(), Targeted(Margin(), 3))
    """
    if isinstance(objective, Targeted):
        return replace(objective, base=Margin())
    return Margin() if isinstance(objective, CrossEntropy | ScaledCrossEntropy | DLR | DLROrMargin) else objective


def own_and_rivals(outputs: Tensor, y: Tensor, count: int) -> Tensor:
    """Return int64 [N, R]: y, then the likeliest other classes, R = min(count, K) in all."""
    return torch.cat([y.long()[:, None], likeliest_wrong(outputs, y.long())], 1)[:, :count]


def nearest_plane(problem: Problem, found: Evaluation, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (f [N], w [N, *features]) of the rival whose linearised boundary is nearest: f = z_k − z_y, w = ∇f.

    Distances are |f| over the dual norm of what the box lets move at the point.
    """
    assert found.jacobian is not None
    scores = found.outputs.double().gather(1, classes)
    ahead = scores[:, 1:] - scores[:, :1]
    ahead = torch.where(found.finite[:, None], ahead, 0.0)
    slopes = found.jacobian.double()
    between = slopes[:, 1:] - slopes[:, :1]
    limits, budget = problem.region.room(found.point), problem.region.budget
    steep = torch.stack([slope(budget, w, limits) for w in between.unbind(1)], 1)
    far = torch.where(steep > 0, ahead.abs() / steep, torch.inf)
    first = far.argmin(1)
    rows = torch.arange(len(first), device=first.device)
    return ahead[rows, first], between[rows, first]


def normalised(region: Region, gradient: Tensor) -> Tensor:
    """Return the part of a gradient that can move, divided by its Euclidean length, float64; 0 stays 0."""
    free = torch.where(region.movable(), gradient.double(), 0.0)
    size = free.flatten(1).abs().amax(1) if free.ndim > 1 else free.abs()
    free = free / expand(torch.where(size > 0, size, 1.0), free)
    length = free.reshape(len(free), -1).square().sum(1).sqrt() if free.numel() else size
    return free / expand(torch.where(length > 0, length, 1.0), free)


def cosine(first: float, last: float, number: int, steps: int) -> float:
    """Return the value at question `number` of `steps` on half a cosine from `first` to `last`.

    >>> cosine(1.0, 0.0, 0, 10), round(cosine(1.0, 0.0, 5, 10), 6), cosine(1.0, 0.0, 10, 10)
    (1.0, 0.5, 0.0)
    """
    return last + (first - last) * (1 + math.cos(math.pi * number / steps)) / 2
