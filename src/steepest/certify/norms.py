"""Upper bounds of operator norms in L2: of matrices, and of convolutions, whose matrices are too large to be written.

Power iteration rises towards the norm from below, so what it says after any number of steps proves nothing. Everything
here comes from above, rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

EXACT = 1024
"""The smaller side up to which a matrix is decomposed; beyond, its Gram matrix is squared a few times."""

_GRAM = 4096
"""The smaller side up to which that is done; beyond, what rows and columns sum to must do."""

_BATCHED = 64
"""The smaller side up to which many matrices (a convolution's frequencies) are decomposed."""

_BLOCK = 16
"""So many of many matrices are looked at closely at once, those that may be the largest first."""

SQUARINGS = 6
"""With so many, a Gaussian matrix's bound is less than 1 % above its norm."""

_UNIT = torch.finfo(torch.float64).eps


def matrix_norm(matrices: Tensor) -> float:
    """Return an upper bound of the largest ‖W‖₂ of matrices [..., m, n], real or complex.

    Exact but for rounding, which is moved outwards, where min(m, n) ≤ 1024; at most 1 % above for matrices with
    independent entries up to 4096.

    >>> 2 <= matrix_norm(torch.tensor([[2.0, 0.0], [0.0, 1.0]])) < 2 + 1e-7
    True
    """
    if not matrices.numel():
        return 0.0
    wide = matrices.to(torch.complex128 if matrices.is_complex() else torch.float64)
    smaller, many = min(wide.shape[-2:]), wide.ndim > 2 and wide[..., 0, 0].numel() > 1
    if smaller > _GRAM:
        return schur(wide.abs())
    if many:
        return _largest_of_many(wide.flatten(0, -3), exact=smaller <= _BATCHED)
    return math.sqrt(_largest_eigenvalue(wide)) if smaller <= EXACT else float(gram_bound(wide, SQUARINGS).max())


def _largest_of_many(matrices: Tensor, *, exact: bool) -> float:
    """Return a bound of the largest norm of [B, m, n]: most matrices are known from afar not to have it."""
    rough = gram_bound(matrices, 1)
    best = 0.0
    for block in torch.split(rough.argsort(descending=True), _BLOCK):
        block = block[rough[block] > best]
        if not len(block):
            break
        found = matrices[block[gram_bound(matrices[block], 3) > best]]
        if not len(found):
            continue
        close = math.sqrt(_largest_eigenvalue(found)) if exact else float(gram_bound(found, SQUARINGS).max())
        best = max(best, close)
    return best


def schur(nonnegative: Tensor) -> float:
    """Return √(largest row sum × largest column sum) or ‖W‖_F, the smaller, of [..., m, n] ≥ 0: both bound ‖W‖₂."""
    rows, columns = nonnegative.sum(-1).amax(-1), nonnegative.sum(-2).amax(-1)
    smallest = (rows * columns).minimum(nonnegative.square().sum((-2, -1))).max().sqrt()
    return float(smallest) * (1 + 4 * _UNIT * sum(nonnegative.shape[-2:]))


def gram_bound(matrices: Tensor, squarings: int) -> Tensor:
    """Return ‖(WᵀW)^(2^(t−1))‖_F^(2^−t) ≥ ‖W‖₂ of matrices [..., m, n], float64 [...], for t = 1 + squarings.

    Every square is rescaled, so that no power leaves the range of numbers, and what its rounding may hide is added.

    Source: Delattre, Barthélemy, Araujo & Allauzen 2023.

    >>> bool(gram_bound(torch.eye(4, dtype=torch.float64), 1) >= 1)
    True
    """
    gram, hidden = _gram(matrices)
    size = torch.linalg.matrix_norm(gram)
    scales = [size]
    gram = gram / _divisor(size)
    for _ in range(squarings):
        gram = gram @ gram
        size = torch.linalg.matrix_norm(gram)
        scales.append(size)
        gram = gram / _divisor(size)
    # λ² of a matrix of Frobenius norm 1 is at most λ of its computed square plus (side + 4) units; read backwards.
    rounding = 4 * _UNIT * (gram.shape[-1] + 8)
    bound = torch.full_like(size, 1 + rounding)
    for size in reversed(scales[1:]):
        bound = (size * bound + rounding).sqrt() * (1 + rounding)
    found: Tensor = (scales[0] * bound + hidden).sqrt() * (1 + rounding)
    return found


def convolution_norm(
    weight: Tensor, spatial: Sequence[int], *, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> float:
    """Return an upper bound of the L2 norm of a convolution with zeros around its input, whatever their number.

    Its outputs are some of those of a circular convolution on a grid of n + dilation·(k − 1) points a side (rounded up
    to a multiple of the stride), on which nothing wraps around: that norm is the largest over the grid's frequencies,
    those that the stride folds onto each other taken together.

    Args:
        weight: [out, in / groups, *kernel].
        spatial: n, the sides of the input.

    Source: Sedghi, Gupta & Long 2019 for circular convolutions.
    """
    grid = []
    for n, s, d, k in zip(spatial, stride, dilation, weight.shape[2:], strict=True):
        grid.append(-(-(n + d * (k - 1)) // s) * s)
    return circular_norm(weight, grid, stride=stride, dilation=dilation, groups=groups)


def circular_norm(
    weight: Tensor, grid: Sequence[int], *, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> float:
    """Return the L2 norm of a circular convolution on a grid whose sides are multiples of the stride, from above.

    Exact but for rounding up to 64 channels (of the smaller side, in a group), within 1 % for most others.

    >>> kernel = torch.ones(1, 1, 3, dtype=torch.float64)
    >>> round(circular_norm(kernel, [8], stride=[1], dilation=[1], groups=1), 6)     # all ones is stretched most
    3.0
    """
    found = weight.to(torch.complex128)
    found = found.reshape(groups, found.shape[0] // groups, *found.shape[1:])
    # Each axis of the kernel, the third, becomes its folded frequencies, last, and their base, first.
    for n, s, d, k in zip(grid, stride, dilation, weight.shape[2:], strict=True):
        turns = torch.outer(torch.arange(n, device=weight.device), d * torch.arange(k, device=weight.device)) % n
        waves = torch.polar(torch.ones_like(turns, dtype=torch.float64), -2 * math.pi * turns.double() / n)
        found = torch.tensordot(found, waves / math.sqrt(s), dims=([3], [1]))
        found = found.unflatten(-1, (s, n // s))
    axes = len(grid)
    folds, bases = ([3 + 2 * axis + part for axis in range(axes)] for part in (0, 1))
    matrices = found.permute(0, *bases, 1, 2, *folds).flatten(axes + 2)
    # The frequencies of a real kernel come in conjugate pairs of the same norm: half of the first axis is enough.
    matrices = matrices[:, : grid[0] // stride[0] // 2 + 1]
    return matrix_norm(matrices.flatten(0, axes)) * (1 + 64 * _UNIT * (weight[0].numel() + 1))


def _gram(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smaller of WWᴴ and WᴴW, and a bound of its rounding in L2."""
    tall = matrices.shape[-2] >= matrices.shape[-1]
    adjoint = matrices.mH
    gram = adjoint @ matrices if tall else matrices @ adjoint
    squares = matrices.abs().square().sum((-2, -1))
    return gram, 4 * _UNIT * (max(matrices.shape[-2:]) + 8) * squares


def _largest_eigenvalue(matrices: Tensor) -> float:
    gram, hidden = _gram(matrices)
    size = torch.linalg.matrix_norm(gram)
    largest = torch.linalg.eigvalsh(gram)[..., -1]
    return float((largest + hidden + 16 * _UNIT * gram.shape[-1] * size).clamp_min(0).max())


def _divisor(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)[..., None, None]
