"""How the slope changes along one displacement, and whether a step of it passes the peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import inner
from steepest.landscape.terrain import Terrain, gradient_of


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curvature:
    """The objective along d = end − x; float64 [N], NaN where an answer is not finite.

    Attributes:
        first: ⟨∇L(x), d⟩.
        second: ⟨∇L(x + d) − ∇L(x), d⟩, the two-point secant in the place of d'Hd.
        predicted: first + ½·second, the gain of the quadratic model; exact for quadratics.
        gained: L(x + d) − L(x).
        overshoots: bool [N], the loss rises at x and falls at the end: a full step passes a peak.
    """

    first: Tensor
    second: Tensor
    predicted: Tensor
    gained: Tensor
    overshoots: Tensor


def curvature(terrain: Terrain, end: Tensor) -> Curvature:
    """Return slope and curvature from x to `end` [N, *features], by the gradients at both: 2 forwards and backwards.

    The secant also sees the kinks of piecewise linear networks, whose Hessian is zero almost everywhere. The
    objective's ascent must be its value up to a constant for `gained` to be comparable.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    >>> ground = Terrain.around(st.Model(lambda p: torch.stack([p[:, 0] ** 2, p[:, 0]], 1)), x, y, st.Linf(0.5))
    >>> found = curvature(ground, torch.tensor([[0.0, 0.5]], dtype=torch.float64))     # L = p − p², d = −½
    >>> float(found.second), float(found.predicted), float(found.gained)
    (-0.5, -0.25, -0.25)
    """
    here, there = terrain.gradient(terrain.x), terrain.gradient(end)
    move = end.double() - terrain.x.double()
    finite = here.finite & there.finite
    first, last = inner(gradient_of(here), move), inner(gradient_of(there), move)
    first, last = first.masked_fill(~finite, torch.nan), last.masked_fill(~finite, torch.nan)
    return Curvature(
        first=first,
        second=last - first,
        predicted=first + (last - first) / 2,
        gained=(there.value.double() - here.value.double()).masked_fill(~finite, torch.nan),
        overshoots=(first > 0) & (last < 0),
    )
