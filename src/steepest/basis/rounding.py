"""Turn an exact perturbation into a point of the model's precision without ever leaving the budget.

Adding δ to x in float32 and clamping overshoots ε by up to half a unit in the last place. In a set that is monotone
in |δᵢ| a point is safe when each coordinate is rounded towards x; the others settle their points themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}

_LARGEST_HALF = torch.finfo(torch.float16).max


def towards(x: Tensor, delta: Tensor) -> Tensor:
    """Return x + δ in the precision of x, each coordinate rounded towards x: |result − x| ≤ |δ| in float64.

    >>> x = torch.tensor([0.7]); point = towards(x, torch.tensor([8 / 255], dtype=torch.float64))
    >>> bool(point.double() - x.double() <= 8 / 255)
    True
    """
    wide = x.to(torch.float64, copy=True)
    point = (wide + delta).to(x.dtype)
    if x.dtype == torch.float16:
        # Beyond its range lies ∞, which the blend below would turn into NaN.
        point.clamp_(-_LARGEST_HALF, _LARGEST_HALF)
    # 1 where a coordinate went too far, else 0: as numbers, since booleans would have to be turned into them. A blend
    # by exactly 0 or 1 is exact, and faster than picking those coordinates out.
    over = wide.sub_(point).abs_().gt_(delta.abs())
    return point.lerp_(_step(point, x), over.to(x.dtype))


def inside(bound: Tensor, like: Tensor, *, upper: bool) -> Tensor:
    """Return a float64 bound in the precision of `like`, rounded so that obeying it obeys the bound itself."""
    rounded = bound.to(like.dtype)
    beyond = rounded.double() > bound if upper else rounded.double() < bound
    if not bool(beyond.any()):
        return rounded
    goal = torch.full_like(rounded, -torch.inf if upper else torch.inf)
    return torch.where(beyond, _step(rounded, goal), rounded)


def ulp(x: Tensor, point: Tensor) -> Tensor:
    """Return, for each coordinate, at least one unit in the last place of x and of the point, float64.

    >>> ulp(torch.tensor([1.0]), torch.tensor([1.5]))
    tensor([1.7881e-07], dtype=torch.float64)
    """
    kind = torch.finfo(x.dtype)
    return torch.maximum(x.double().abs(), point.double().abs()) * kind.eps + kind.smallest_normal * kind.eps


def _step(value: Tensor, goal: Tensor) -> Tensor:
    """Return the next number of the same precision from `value` towards `goal`, as torch.nextafter, for halves too."""
    if value.dtype in (torch.float32, torch.float64):
        return torch.nextafter(value, goal)
    # Floats are ordered like their sign-magnitude bits: one more is one step away from zero.
    bits = value.contiguous().view(_BITS[value.dtype])
    away = (goal > value) == (value > 0)
    moved = torch.where(away, bits + 1, bits - 1).view(value.dtype)
    smallest = torch.ones_like(bits).view(value.dtype)
    moved = torch.where(value == 0, torch.where(goal > value, smallest, -smallest), moved)
    return torch.where(goal == value, value, moved)
