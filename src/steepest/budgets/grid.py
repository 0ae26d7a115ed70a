"""Numbers that move in whole steps: multiples of a step inside an interval around 0; a step of 0 is a continuum."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.budgets import coordinatewise
from steepest.budgets.contract import Limits

_WALL = 2.0**-14
"""Of a step: so little may be missing to a wall of the box, since x itself is rounded on grids such as k/255."""

_TINY = 1 + 2.0**-30


def whole(size: Tensor) -> Tensor:
    """Return the whole number of units in `size`; a product that rounding left just below a whole number counts.

    >>> whole(torch.tensor([0.3, 0.29], dtype=torch.float64) / 0.1)
    tensor([3., 2.], dtype=torch.float64)
    """
    return (size * _TINY).floor()


def reach(interval: Limits, step: Tensor, limits: Limits | None) -> Limits:
    """Return the outermost multiples of `step` inside the interval and the limits; both themselves where it is 0."""
    cut = coordinatewise.cut(interval, limits)
    unit = torch.where(step > 0, step, 1.0)
    ends = []
    for side in (0, 1):
        count = whole(interval[side].abs() / unit)
        if limits is not None:
            count = torch.minimum(count, (limits[side].abs() / unit + _WALL).floor())
        far = count * unit if limits is None else (count * unit).minimum(limits[side].abs())
        ends.append(torch.where(step > 0, far if side else -far, cut[side]))
    return ends[0], ends[1]


def nearest(reached: Limits, step: Tensor, delta: Tensor) -> Tensor:
    """Return the nearest allowed number; of two equally near ones that which is farther from 0."""
    unit = torch.where(step > 0, step, 1.0)
    rounded = delta.sign() * (delta.abs() / unit + 0.5).floor() * unit
    return coordinatewise.project(reached, torch.where(step > 0, rounded.to(delta.dtype), delta))


def sample(reached: Limits, step: Tensor, like: Tensor, stream: Stream, number: int) -> Tensor:
    """Return independent draws, each uniform over its interval or over the multiples in it; float64."""
    low, high = reached
    unit = torch.where(step > 0, step, 1.0)
    draw = stream.uniform(number, tuple(like.shape[1:]))
    counts = ((high - low) / unit).round()
    return torch.where(
        step > 0, torch.minimum(low + (draw * (counts + 1)).floor() * unit, high), low + (high - low) * draw
    )


def counts(delta: Tensor, step: Tensor, slack: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return how many steps each number is, and whether it is a whole number of them, to within `slack`."""
    unit = torch.where(step > 0, step, 1.0)
    count = (delta / unit).round()
    # Some units in the last place of the product, which is all that float64 can tell.
    off = (delta - count * unit).abs() - delta.abs() * 2.0**-50
    return count, (step == 0) | (off <= slack)


def gaining(gain: Tensor) -> Tensor:
    """Return the gains, −∞ where there is none."""
    return torch.where(gain > 0, gain, -torch.inf)


def foremost(gain: Tensor, count: Tensor) -> Tensor:
    """Return bool: the `count` [N] largest entries of each row; of equal ones the first, and never −∞."""
    order = gain.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(gain.shape[1], device=gain.device).expand_as(order))
    return (rank < count[:, None]) & (gain > -torch.inf)
