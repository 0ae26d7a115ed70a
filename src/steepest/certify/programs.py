"""Linear programs on pieces of the ground where a network is affine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.linear import Bounds


def least_on_piece(bounds: Bounds, index: int, row: Tensor, signs: Mapping[int, Tensor]) -> float:
    """Return the minimum of a margin on the part `index` of a ground where every activation is decided; +∞ if empty.

    min c·p + d over the box of p, with sign · z(p) ≥ 0 for every value z that a split decided, by HiGHS (SciPy); moved
    down by its tolerance. −∞ where the ground is no product of intervals, or the program failed.
    """
    if not bounds.ground.boxed:
        return -torch.inf
    from scipy.optimize import linprog

    here = bounds.rows(torch.tensor([index]))
    matrix, limit = [], []
    for at, sign in signs.items():
        places = sign[index].flatten().nonzero().squeeze(1)
        if not len(places):
            continue
        wanted = sign[index].flatten()[places]
        slopes, shifts = _affine(here, at, places)
        matrix.append(-(wanted[:, None] * slopes).numpy())
        limit.append((wanted * shifts).numpy())
    slope, shift = _affine_of(here, row[None], bounds.network.last)
    low, high = here.ground.low.flatten().numpy(), here.ground.high.flatten().numpy()
    found = linprog(
        slope[0].numpy(),
        A_ub=np.concatenate(matrix) if matrix else None,
        b_ub=np.concatenate(limit) if limit else None,
        bounds=np.stack([low, high], 1),
        method="highs",
    )
    if found.status == 2:
        return torch.inf
    if found.status != 0:
        return -torch.inf
    return float(found.fun + shift[0]) - _TOLERANCE * (1 + float(slope.abs().sum()))


_TOLERANCE = 1e-7
"""Of HiGHS: constraints may be missed by so much."""


def _affine(bounds: Bounds, at: int, places: Tensor) -> tuple[Tensor, Tensor]:
    shape = bounds.network.graph.steps[at].shape
    unit = torch.zeros(len(places), int(torch.Size(shape).numel()), dtype=torch.float64)
    unit[torch.arange(len(places)), places] = 1
    return _affine_of(bounds, unit.reshape(-1, *shape), at)


def _affine_of(bounds: Bounds, a: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """Return (slopes [M, inputs], constants [M]) of ⟨a, value of step `at`⟩, which is affine on the ground."""
    owner = torch.zeros(len(a), dtype=torch.int64)
    found = bounds.lower(a, owner, at)
    slope = found.at_input
    return flat(slope), found.value - bounds.ground.least(slope, owner)
