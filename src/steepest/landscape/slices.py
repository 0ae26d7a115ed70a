"""A plane through x for pictures: the direction of FGSM, and one drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import expand, inner
from steepest.landscape.terrain import Terrain, gradient_of


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """The objective over x + a·(FGSM's displacement) + b·(a random one), cut by the box.

    Attributes:
        fgsm: the values of a, float64 [R]; at 1 is FGSM's point.
        random: the values of b, float64 [R].
        value: the objective at (a, b), float64 [N, R, R], a first; NaN where the outputs are not finite.
        linear: L(x) + ⟨g, p − x⟩ at the same points.
    """

    fgsm: Tensor
    random: Tensor
    value: Tensor
    linear: Tensor


def plane(terrain: Terrain, *, resolution: int = 21, reach: float = 1.5) -> Plane:
    """Return the objective on a grid of `resolution` × `resolution` points from −`reach` to `reach` in both directions.

    The second displacement goes to the region's extreme point of a random corner less its part along the first: a
    full step of the budget too, and nearly orthogonal. Beyond 1 points leave the region; the box cuts them all. Asks
    resolution² + 1 forwards and one backward.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> found = plane(Terrain.around(st.Model(lambda p: 2 * p), x, y, st.Linf(0.25)), resolution=3, reach=1)
    >>> found.value[0, :, 1]                        # along FGSM's direction: 2·(p₂ − p₁)
    tensor([-1.,  0.,  1.], dtype=torch.float64)
    """
    x = terrain.x.double()
    here = terrain.gradient(terrain.x)
    slope = gradient_of(here)
    along = terrain.region.extreme(slope).double() - x
    across = _across(terrain, along)
    shares = torch.linspace(-reach, reach, resolution, dtype=torch.float64, device=x.device)
    values, linear = [], []
    for share in shares:
        points = (x + share * along)[:, None] + expand(shares, across) * across[:, None]
        points = terrain.into_box(points)
        moved = points.double() - x[:, None]
        values.append(terrain.values(points))
        gain = (slope.double()[:, None] * moved).flatten(2).sum(2)
        linear.append(here.value.double()[:, None] + gain)
    return Plane(fgsm=shares, random=shares, value=torch.stack(values, 1), linear=torch.stack(linear, 1))


def _across(terrain: Terrain, along: Tensor) -> Tensor:
    """Return a random displacement of the region's size, nearly orthogonal to `along`, float64."""
    region, x = terrain.region, terrain.x.double()
    drawn = region.corner(terrain.stream.split(3), 0).double() - x
    size = inner(along, along)
    share = torch.where(size > 0, inner(drawn, along) / size, 0.0)
    return region.extreme((drawn - expand(share, along) * along).to(terrain.x.dtype)).double() - x
