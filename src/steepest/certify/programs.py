"""Linear programs on pieces of the ground where every activation that can be split is decided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.linear import Bounds

Rows = NDArray[np.float64]


def least_on_piece(bounds: Bounds, index: int, row: Tensor, signs: Mapping[int, Tensor]) -> float:
    """Return a lower bound of a margin on the part `index` of a ground; +∞ if the part is empty.

    min c·p + d over the box of p, c·p + d below the margin, with u(p) ≥ 0 for every value z that a split decided, u
    above sign · z: no point of the part is cut off. Where everything is decided both are exact, and so is the minimum.
    HiGHS (SciPy) proposes multipliers of the conditions; what is returned is what they prove, whatever its tolerances.
    −∞ where the ground is no product of intervals, or it failed.
    """
    if not bounds.ground.boxed:
        return -torch.inf
    here = bounds.rows(torch.tensor([index]))
    slope, shift = _affine_of(here, row[None], bounds.network.last)
    slopes, shifts = [slope], [shift]
    for at, sign in signs.items():
        places = sign[index].flatten().nonzero().squeeze(1)
        if len(places):
            # Below −sign · z ≤ 0 lies a linear function of p, which is at most 0 as well.
            found = _affine(here, at, places, -sign[index].flatten()[places])
            slopes.append(found[0])
            shifts.append(found[1])
    # In t of [−1, 1] for each input: conditions and margin have the sizes of what they can be.
    low, high = here.ground.low.flatten(), here.ground.high.flatten()
    matrix, offset = torch.cat(slopes), torch.cat(shifts)
    offset = offset + matrix @ ((low + high) / 2) - _ROUNDING * (matrix.abs() @ low.abs().maximum(high.abs()))
    matrix = matrix * ((high - low) / 2)
    scale = matrix.abs().amax(1)
    scale = torch.where(scale > 0, scale, 1.0)
    matrix, offset = matrix / scale[:, None], offset / scale
    return _least(matrix.numpy(), offset.numpy()) * float(scale[0])


_ROUNDING = 1e-13
"""Sums are moved downwards by so much of the sizes of their terms."""


def _least(matrix: Rows, offset: Rows) -> float:
    """Return a lower bound of the first of m affine functions over [−1, 1]ⁿ where the others are at most 0."""
    from scipy.optimize import linprog

    conditions, limits = matrix[1:], -offset[1:]
    found = linprog(matrix[0], A_ub=conditions, b_ub=limits, bounds=(-1, 1), method="highs")
    if found.status == 0:
        return _proven(matrix, offset, np.append(1.0, -found.ineqlin.marginals))
    if found.status != 2:
        return -torch.inf
    # By how much all conditions together must be missed: above 0, no point meets them.
    missed = np.append(np.zeros(matrix.shape[1]), 1.0)
    beside = np.concatenate([conditions, -np.ones((len(conditions), 1))], 1)
    sides = [(-1, 1)] * matrix.shape[1] + [(None, None)]
    found = linprog(missed, A_ub=beside, b_ub=limits, bounds=sides, method="highs")
    if found.status != 0:
        return -torch.inf
    return torch.inf if _proven(matrix, offset, np.append(0.0, -found.ineqlin.marginals)) > 0 else -torch.inf


def _proven(matrix: Rows, offset: Rows, weights: Rows) -> float:
    """Return min over [−1, 1]ⁿ of the weighted sum of functions: below the first one wherever the others are at most 0.

    Weights below 0 count as 0: those that are left prove something whoever proposed them.
    """
    weights = weights.clip(0)
    least = weights @ offset - np.abs(weights @ matrix).sum()
    return float(least - _ROUNDING * (weights @ (np.abs(offset) + np.abs(matrix).sum(1))))


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
