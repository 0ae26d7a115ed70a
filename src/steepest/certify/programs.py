"""Linear programs on pieces of the ground where every activation that can be split is decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.linear import Bounds


def least_on_piece(bounds: Bounds, index: int, row: Tensor, signs: Mapping[int, Tensor]) -> float:
    """Return a lower bound of a margin on the part `index` of a ground; +∞ if the part is empty.

    min c·p + d over the box of p, c·p + d below the margin, with u(p) ≥ 0 for every value z that a split decided, u
    above sign · z: no point of the part is cut off. Where everything is decided both are exact, and so is the minimum.
    By HiGHS (SciPy), moved down by its tolerance. −∞ where the ground is no product of intervals, or it failed.
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
        # Below −sign · z ≤ 0 lies a linear function of p, which is at most 0 as well.
        slopes, shifts = _affine(here, at, places, -wanted)
        matrix.append(slopes.numpy())
        limit.append(-shifts.numpy())
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


def _affine(bounds: Bounds, at: int, places: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return what lies below weights · (single values of step `at`): see `_affine_of`."""
    shape = bounds.network.graph.steps[at].shape
    unit = torch.zeros(len(places), int(torch.Size(shape).numel()), dtype=torch.float64)
    unit[torch.arange(len(places)), places] = weights
    return _affine_of(bounds, unit.reshape(-1, *shape), at)


def _affine_of(bounds: Bounds, a: Tensor, at: int) -> tuple[Tensor, Tensor]:
    """Return (slopes [M, inputs], constants [M]) of a linear function below ⟨a, value of step `at`⟩ on the ground."""
    owner = torch.zeros(len(a), dtype=torch.int64)
    found = bounds.lower(a, owner, at)
    slope = found.at_input
    return flat(slope), found.value - bounds.ground.least(slope, owner)
