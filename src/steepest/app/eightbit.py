"""Rounding points to images of 8 bits without leaving the budget."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.box import Box
from steepest.budgets.contract import Budget

_ON_GRID = 1e-4
"""A clean value this near to a level, in levels, is that level: float32 holds k/255 to 1e-5 levels."""


def rounded_inside(x: Tensor, point: Tensor, budget: Budget, box: Box) -> tuple[Tensor, Tensor]:
    """Return (uint8 [N, ...], bool [N]): the nearest image of 256 levels, and whether it lies in the budget.

    An image that leaves the budget is rounded towards x instead, coordinate by coordinate. Differences are counted
    in levels of 1/255 in float64, so that 8 levels are 8/255 and not a float32 more.

    >>> from steepest.budgets.linf import Linf
    >>> x, point = torch.tensor([[10.0]]) / 255, torch.tensor([[12.9]]) / 255
    >>> rounded_inside(x, point, Linf(2.95 / 255).fitted((1, 1)), Box(0, 1))[0].tolist()
    [[12]]
    """
    start, end = _levels(x), _levels(point)
    nearest = end.round()
    towards = torch.where(end >= start, end.floor(), end.ceil())
    # A step towards x must not cross it, unless x itself lies between two levels.
    kept = _inside(start, nearest, budget, box)
    chosen = torch.where(kept.reshape(-1, *[1] * (x.ndim - 1)), nearest, towards)
    return chosen.clamp(0, 255).to(torch.uint8), kept | _inside(start, chosen, budget, box)


def _levels(x: Tensor) -> Tensor:
    """Return x in levels of 1/255, float64; values that stand for a level are that level exactly."""
    wide = x.double() * 255
    level = wide.round()
    return torch.where((wide - level).abs() < _ON_GRID, level, wide)


def _inside(start: Tensor, end: Tensor, budget: Budget, box: Box) -> Tensor:
    return (budget.gauge((end - start) / 255) <= 1) & box.contains(end / 255)
