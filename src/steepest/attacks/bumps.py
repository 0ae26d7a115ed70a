"""The patterns that Square paints inside a ball: a hill beside a valley."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def patterns(high: int, wide: int, order: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two patterns [high, wide], float64, of length 1: hill and valley one above the other and side by side.

    Length is (Σ|δᵢ|^q)^(1/q), q = `order`, 1 or 2; hill and valley are equally long. A hill is made of nested
    rectangles around its middle, of which the k-th, k steps away, adds 1/(k + 1)^(4/q). One row or column has one
    pattern.

    >>> patterns(1, 2, 2, torch.device("cpu"))[0]
    tensor([[ 0.7071, -0.7071]], dtype=torch.float64)
    """
    above, beside = _halves(high, wide, order), _halves(wide, high, order).T
    if min(high, wide) == 1:
        above = beside = above if high > 1 else beside
    return above.to(device), beside.to(device)


def unit(values: Tensor, order: int) -> Tensor:
    """Divide by the length (Σ|δᵢ|^order)^(1/order) along the last axis; zeros stay."""
    length = values.abs().pow(order).sum(-1, keepdim=True).pow(1 / order)
    return values / length.masked_fill(length == 0, 1)


@lru_cache(maxsize=64)
def _halves(high: int, wide: int, order: int) -> Tensor:
    half = high // 2
    pattern = torch.cat([_hill(half, wide, order), -_hill(high - half, wide, order)])
    return unit(pattern.flatten(), order).reshape(high, wide)


def _hill(high: int, wide: int, order: int) -> Tensor:
    down = (torch.arange(high) - high // 2).abs()
    side = (torch.arange(wide) - wide // 2).abs()
    steps = torch.maximum(down[:, None], side[None, :])
    count = max(high, wide) // 2 + 1
    tail = (torch.arange(count, 0, -1).double() ** (-4 / order)).cumsum(0).flip(0)
    return unit(tail[steps].flatten(), order).reshape(high, wide)
