"""How far the gradient keeps its direction."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.tensors import flat, inner
from steepest.landscape.terrain import Terrain, gradient_of


def gradient_alignment(terrain: Terrain, *, radii: tuple[float, ...] = (1e-3, 1e-2, 0.1, 1.0)) -> Tensor:
    """Return cos(∇L(x), ∇L(p)) for a random p of the region at each of `radii` budgets, float64 [N, R].

    Points are uniform in r times the budget. NaN where one of the two gradients is zero or not finite: there is no
    direction. One forward and backward for x and for each radius.

    Source: Andriushchenko & Flammarion 2020 (GradAlign), at r = 1.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> found = gradient_alignment(Terrain.around(st.Model(lambda p: 2 * p), x, y, st.Linf(0.25)))
    >>> found.round(decimals=6)
    tensor([[1., 1., 1., 1.]], dtype=torch.float64)
    """
    here = terrain.gradient(terrain.x)
    stream = terrain.stream.split(2)
    found = [terrain.gradient(terrain.region.scaled(r).sample(stream, step)) for step, r in enumerate(radii)]
    columns = [_cosine(gradient_of(here), gradient_of(each)) for each in found]
    return torch.stack(columns, 1) if columns else here.value.new_zeros(len(terrain.x), 0, dtype=torch.float64)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # Gradients that are not finite come as zero, so both cases end as 0/0.
    return inner(_unit(a), _unit(b)).clamp(-1, 1)


def _unit(g: Tensor) -> Tensor:
    rows = flat(g).double()
    return rows / rows.square().sum(1, keepdim=True).sqrt()
