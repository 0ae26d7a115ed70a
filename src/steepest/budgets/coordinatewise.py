"""Sets that are a product of intervals: every question is answered coordinate by coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import flat, inner
from steepest.budgets.contract import Limits


def cut(interval: Limits, limits: Limits | None) -> Limits:
    """Return the intersection of two products of intervals."""
    if limits is None:
        return interval
    return torch.maximum(interval[0], limits[0]), torch.minimum(interval[1], limits[1])


def extreme(interval: Limits, g: Tensor) -> Tensor:
    """Return the corner that g points to; coordinates with g = 0 stay 0."""
    low, high = (side.to(g.dtype) for side in interval)
    return torch.where(g > 0, high, torch.where(g < 0, low, torch.zeros_like(g)))


def support(interval: Limits, g: Tensor) -> Tensor:
    """Return Σ max(gᵢ·lowᵢ, gᵢ·highᵢ), float64 [N]."""
    return inner(g, extreme(interval, g.double()))


def project(interval: Limits, delta: Tensor) -> Tensor:
    """Return `delta` clamped to the intervals."""
    return torch.clamp(delta, interval[0].to(delta.dtype), interval[1].to(delta.dtype))


def sample(interval: Limits, like: Tensor, stream: Stream, step: int) -> Tensor:
    """Return a uniform point of the product; the product of uniform draws is the uniform law."""
    low, high = interval
    return stream.uniform(step, tuple(like.shape[1:])).mul_(high - low).add_(low)


def swaps(interval: Limits, delta: Tensor, g: Tensor, first: Tensor, count: int) -> Tensor:
    """Return [N, count, *features]: `delta` with one coordinate at its end, the largest gains first; see `Discrete`."""
    here, v = flat(delta), flat(g)
    corner = flat(extreme(interval, g).expand_as(delta))
    gain = torch.where(corner == here, -torch.inf, v * (corner - here))
    turn = (first[:, None] + torch.arange(count, device=g.device)) % max(1, here.shape[1])
    column = gain.argsort(dim=1, descending=True, stable=True).gather(1, turn)
    moved = here[:, None].repeat(1, count, 1).scatter_(2, column[:, :, None], corner.gather(1, column)[:, :, None])
    return moved.reshape(len(here), count, *delta.shape[1:])
