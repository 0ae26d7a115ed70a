"""Linear relations between the values of an example: a total stays the sum of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat
from steepest.budgets.contract import Budget
from steepest.budgets.subspace import Subspace

_TINY = 1e-12


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Equations:
    """The subspace {δ : Aδ = 0} for the rows of `rows` [m, *features], which need not be independent; a `Span`.

    Raises:
        UsageError: a row is not finite.
    """

    rows: Tensor

    def __post_init__(self) -> None:
        given = torch.as_tensor(self.rows, dtype=torch.float64)
        if given.ndim < 2 or not bool(torch.isfinite(given).all()):
            raise UsageError(
                f"relations: a matrix of shape {tuple(given.shape)} is not a stack of finite rows; give one per "
                "relation, [m, *features]: total = a + b is [[1, -1, -1]]."
            )
        _, size, rows = torch.linalg.svd(flat(given), full_matrices=False)
        rank = int((size > 1e-10 * size.max()).sum()) if size.numel() else 0
        object.__setattr__(self, "rows", rows[:rank].reshape(rank, *given.shape[1:]))

    def __repr__(self) -> str:
        return f"Equations({'×'.join(map(str, self.rows.shape))})"

    def fitted(self, features: tuple[int, ...]) -> int:
        """See `Span.fitted`."""
        if tuple(self.rows.shape[1:]) != features:
            raise UsageError(
                f"relations: rows of shape {tuple(self.rows.shape[1:])} do not fit examples of shape {features}: "
                f"give [m, {', '.join(map(str, features))}], with 0 where a value takes no part."
            )
        return int(torch.Size(features).numel()) - self.rows.shape[0]

    def onto(self, v: Tensor) -> Tensor:
        """See `Span.onto`: v − AᵀAv, the rows of A made orthonormal."""
        rows, wide = flat(self.rows.to(v.device)), flat(v).double()
        return (wide - (wide @ rows.T) @ rows).reshape(v.shape)

    def reach(self, like: Tensor) -> Tensor:
        """See `Span.reach`; exactly 0 where a relation fixes the value."""
        left = 1 - self.rows.to(like.device).square().sum(0, keepdim=True)
        return torch.where(left > _TINY, left, 0.0).sqrt()


def relations(inner: Budget, rows: Tensor) -> Subspace:
    """Return the changes within a convex budget that keep linear relations: {δ in the inner budget : Aδ = 0}.

    Whatever equations A x = b hold at x hold at every point, to one unit in the last place per coordinate. Exact for
    `L2`; for others, and where the box cuts, iterated to `Subspace.accuracy`. For numbers that move without steps.

    Args:
        inner: a convex budget, e.g. L2, Linf, Weighted.
        rows: A, [m, *features]; total = a + b is [[1, −1, −1]] for the columns total, a, b.

    Raises:
        UsageError: the rows do not fit the input, or the budget is not convex.

    >>> from steepest.budgets.l2 import L2
    >>> relations(L2(1.0), torch.tensor([[1.0, -1.0, -1.0]])).extreme(torch.tensor([[0.0, 1.0, -1.0]]))
    tensor([[ 0.0000,  0.7071, -0.7071]])
    """
    return Subspace(inner, Equations(rows))
