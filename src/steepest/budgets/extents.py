"""How far from x a budget inside the box can reach at all: each coordinate, all together, and against weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Budget
from steepest.budgets.ellipsoid import Ellipsoid
from steepest.budgets.intersection import Intersection
from steepest.budgets.l0 import L0
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.masked import Masked
from steepest.budgets.pixel_l2 import PixelL2
from steepest.budgets.pixel_sum import PixelSum
from steepest.budgets.region import Region
from steepest.budgets.subspace import Subspace

_ROUNDING = 1e-12


def euclidean_reach(region: Region) -> Tensor:
    """Return max ‖p − x‖₂ over a region, or a number above it, float64 [N]; ∞ where nothing bounds it.

    The farthest corner of what budget and box let each coordinate do, exact for products of intervals; at most ε for
    L2, L1 and sums over pixels, ε/√λ for an ellipsoid whose smallest eigenvalue is λ, and for at most k values the
    farthest k. A smaller region never reaches farther.

    >>> from steepest.basis.box import Box
    >>> from steepest.budgets.linf import Linf
    >>> euclidean_reach(Region(Linf(0.1), Box(0, 1), torch.tensor([[0.5, 1.0, 0.5, 0.5]])))     # 0.1·√4
    tensor([0.2000], dtype=torch.float64)
    """
    x = region.x
    sides = coordinate_reach(region)
    corner = sides.square().sum(1).sqrt()
    found: Tensor = corner.minimum(_own(region.budget, x, sides)) * (1 + _ROUNDING)
    return found


def coordinate_reach(region: Region) -> Tensor:
    """Return the largest |pᵢ − xᵢ| of each coordinate over the hull of a region, float64 [N, d].

    >>> from steepest.basis.box import Box
    >>> from steepest.budgets.l2 import L2
    >>> coordinate_reach(Region(L2(0.5), Box(0, 1), torch.tensor([[0.9, 0.2]])))
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    (low, high), (down, up) = region.budget.hull(region.x), region.limits()
    sides = torch.maximum(-low.maximum(down), high.minimum(up))
    return flat(sides.expand(region.x.shape)).double()


def absolute_support(region: Region, weights: Tensor) -> Tensor:
    """Return max Σᵢ wᵢ|pᵢ − xᵢ| over a region, or a number above it, float64 [N, M]; ∞ where nothing bounds it.

    Exact for products of intervals, and for balls of L2, L1, L0 and pixels up to what the box makes of their
    symmetry: each |pᵢ − xᵢ| may be as large as the farther side. Other sets are taken as their hulls.

    Args:
        weights: float64 [M, d], at least 0.

    >>> from steepest.basis.box import Box
    >>> around = Region(L2(1.0), Box.of(None), torch.tensor([[0.5, 0.5]]))
    >>> absolute_support(around, torch.tensor([[3.0, 4.0]]).double())
    tensor([[5.0000]], dtype=torch.float64)
    """
    x, sides = region.x, coordinate_reach(region)
    wide = weights.to(x.device, torch.float64)
    found = sides.masked_fill(sides.isinf(), 0.0) @ wide.mT
    # A coordinate without weight may go as far as it likes.
    boundless = sides.isinf().double() @ (wide > 0).double().mT > 0
    found = found.masked_fill(boundless, torch.inf)
    if _unconditional(region.budget):
        limits = -sides.reshape(x.shape), sides.reshape(x.shape)
        rows = (row.reshape(1, *x.shape[1:]).expand(x.shape) for row in wide)
        # A set that holds δ with every change of its signs gains most from weights where all signs agree.
        ball = [region.budget.support(row, limits) for row in rows]
        found = found.minimum(torch.stack(ball, 1)) if ball else found
    bound: Tensor = found * (1 + _ROUNDING)
    return bound


def _unconditional(budget: Budget) -> bool:
    while isinstance(budget, Masked):
        budget = budget.inner
    return isinstance(budget, L2 | L1 | PixelL2 | PixelSum) or (isinstance(budget, L0) and not budget.pixels)


def _own(budget: Budget, x: Tensor, sides: Tensor) -> Tensor:
    """Return what is known of a set beyond its hull; ∞ where nothing is."""
    while isinstance(budget, Masked | Subspace):
        budget = budget.inner
    free: Tensor = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    if isinstance(budget, L2 | L1 | PixelSum):
        return eps.per_example(budget.epsilon, x, type(budget).__name__)
    if isinstance(budget, Intersection):
        factor = eps.per_example(budget.epsilon, x, "Intersection")
        for part in budget.members:
            free = free.minimum(_own(part.scaled(factor), x, sides))
    if isinstance(budget, Ellipsoid) and budget.spectrum is not None:
        return eps.per_example(budget.epsilon, x, "Ellipsoid") / math.sqrt(float(budget.spectrum[1].min()))
    if isinstance(budget, L0) and not budget.pixels:
        return _farthest(sides, eps.per_example(budget.epsilon, x, "L0"))
    return free


def _farthest(sides: Tensor, count: Tensor) -> Tensor:
    """Return the length of the `count` [N] largest entries of each row."""
    ordered = sides.square().sort(1, descending=True).values.cumsum(1)
    kept = count.floor().long().clamp(0, sides.shape[1])
    padded = torch.cat([ordered.new_zeros(len(ordered), 1), ordered], 1)
    return padded.gather(1, kept[:, None]).squeeze(1).sqrt()
