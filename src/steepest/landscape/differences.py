"""Whether the gradient is the slope: automatic differentiation against differences of the loss, scale by scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import inner, largest
from steepest.landscape.terrain import Terrain, gradient_of

_ROUNDINGS = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FiniteDifferences:
    """Slopes along D displacements of each example, all float64.

    Attributes:
        autograd: ⟨∇L(x), v⟩, [N, D].
        measured: the difference quotient at each scale, [N, D, S].
        noise: how much of `measured` rounding may be, [N, S]: 32 units in the last place of the largest output over
            the step. Only differences above it say anything.
    """

    autograd: Tensor
    measured: Tensor
    noise: Tensor


def finite_differences(
    terrain: Terrain, directions: Tensor, *, scales: tuple[float, ...] = (1e-3, 0.1, 1.0)
) -> FiniteDifferences:
    """Return the slopes along `directions` [N, D, *features], displacements v inside the region, by both ways.

    At scale h the difference is (L(x + hv) − L(x − hv))/2h, or (L(x + hv) − L(x))/h where x − hv leaves the box.
    Agreement at the smallest scale and not at the largest is curvature; zero from autograd beside a slope at scale 1
    is a masked gradient; disagreement at every scale is a wrong backward pass.

    The objective's ascent must be its value up to a constant. In float64 where the network has a twin there. Asks
    2DS + 1 forwards and one backward (and two forwards to find the twin).

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> ground = Terrain.around(st.Model(lambda p: torch.stack([p[:, 0] ** 3, 0 * p[:, 0]], 1)), x, y, st.Linf(0.5))
    >>> found = finite_differences(ground, torch.tensor([[[0.5, 0.0]]]), scales=(0.001, 1.0))
    >>> found.autograd, found.measured[0, 0]      # −((½ + h/2)³ − (½ − h/2)³)/2h = −(3/8 + h²/8)
    (tensor([[-0.3750]], dtype=torch.float64), tensor([-0.3750, -0.5000], dtype=torch.float64))
    """
    precise, moves = terrain.precise(), directions.double()
    x = terrain.x.double()
    here = precise.gradient(x)
    autograd = (
        inner(gradient_of(here).repeat_interleave(moves.shape[1], 0), moves.flatten(0, 1))
        .reshape(moves.shape[:2])
        .masked_fill(~here.finite[:, None], torch.nan)
    )
    base = here.value.double()[:, None]
    measured = [_difference(precise, moves * scale, base) / scale for scale in scales]
    unit = _ROUNDINGS * torch.finfo(here.outputs.dtype).eps * largest(here.outputs).double()
    return FiniteDifferences(
        autograd=autograd,
        measured=torch.stack(measured, 2),
        noise=unit[:, None] / torch.tensor(scales, dtype=torch.float64, device=x.device),
    )


def _difference(precise: Terrain, moves: Tensor, base: Tensor) -> Tensor:
    """Return half of L(x + v) − L(x − v), or L(x + v) − L(x) where the box ends, [N, D]."""
    x, count = precise.x.double()[:, None], moves.shape[:2]
    forth, back = x + moves, x - moves
    free = precise.region.box.contains(back.flatten(0, 1)).reshape(count)
    ahead, behind = precise.values(forth), precise.values(torch.where(_wide(free, back), back, x))
    return torch.where(free, (ahead - behind) / 2, ahead - base)


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(*rows.shape, *[1] * (like.ndim - 2))
