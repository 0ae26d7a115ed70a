"""Linear subspaces of the inputs: the span of given vectors, or of the slowest cosines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat


class Span(Protocol):
    """A subspace of the inputs, as the orthogonal projection onto it."""

    def fitted(self, features: tuple[int, ...]) -> int:
        """Return the dimension of the subspace of inputs of shape `features`; raises UsageError if it fits none."""

    def onto(self, v: Tensor) -> Tensor:
        """Return the nearest points of the subspace, float64 [N, *features]."""

    def reach(self, like: Tensor) -> Tensor:
        """Return how far each coordinate goes in unit vectors of the subspace, float64 [1, *features]."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Vectors:
    """The span of the rows of `basis` [m, *features]; they need be neither orthogonal nor independent.

    Raises:
        UsageError: a row is not finite.
    """

    basis: Tensor

    def __post_init__(self) -> None:
        given = torch.as_tensor(self.basis).double()
        if given.ndim < 2 or not bool(torch.isfinite(given).all()):
            raise UsageError(
                f"Subspace: a basis of shape {tuple(given.shape)} is not a stack of finite vectors; give one per row, "
                "[m, *features]."
            )
        _, size, rows = torch.linalg.svd(flat(given), full_matrices=False)
        rank = int((size > 1e-10 * size.max()).sum()) if size.numel() else 0
        object.__setattr__(self, "basis", rows[:rank].reshape(rank, *given.shape[1:]))

    def __repr__(self) -> str:
        return f"Vectors({'×'.join(map(str, self.basis.shape))})"

    def fitted(self, features: tuple[int, ...]) -> int:
        """See `Span.fitted`."""
        if tuple(self.basis.shape[1:]) != features:
            raise UsageError(
                f"Subspace: basis vectors of shape {tuple(self.basis.shape[1:])} do not fit examples of shape "
                f"{features}: give [m, {', '.join(map(str, features))}]."
            )
        return self.basis.shape[0]

    def onto(self, v: Tensor) -> Tensor:
        """See `Span.onto`: BᵀBv."""
        rows = flat(self.basis.to(v.device))
        return ((flat(v).double() @ rows.T) @ rows).reshape(v.shape)

    def reach(self, like: Tensor) -> Tensor:
        """See `Span.reach`."""
        return self.basis.to(like.device).square().sum(0, keepdim=True).sqrt()


@final
@dataclass(frozen=True, slots=True)
class Cosines:
    """The slowest `cutoff` cosines (DCT-II) along each of the last two axes of an example, or along its only axis.

    Raises:
        UsageError: the cutoff is not a whole number of at least 1.
    """

    cutoff: int

    def __post_init__(self) -> None:
        if not isinstance(self.cutoff, int) or self.cutoff < 1:
            raise UsageError(
                f"low_frequency: cutoff={self.cutoff!r} is not allowed; give how many frequencies per axis stay, "
                "a whole number of at least 1 (1: the mean alone)."
            )

    def fitted(self, features: tuple[int, ...]) -> int:
        """See `Span.fitted`."""
        if not features:
            raise UsageError("low_frequency: an example that is a single number has no frequencies; give images.")
        return math.prod(features[:-2]) * math.prod(min(self.cutoff, size) for size in features[-2:])

    def onto(self, v: Tensor) -> Tensor:
        """See `Span.onto`: along one axis after the other."""
        wide = v.double() @ self._onto(v.shape[-1], v)
        return self._onto(v.shape[-2], v) @ wide if v.ndim > 2 else wide

    def reach(self, like: Tensor) -> Tensor:
        """See `Span.reach`."""
        across = self._onto(like.shape[-1], like).diagonal()
        if like.ndim > 2:
            across = self._onto(like.shape[-2], like).diagonal()[:, None] * across
        return across.sqrt().expand(1, *like.shape[1:])

    def _onto(self, size: int, like: Tensor) -> Tensor:
        """Return the projection [size, size] onto the slowest cosines of one axis."""
        k = torch.arange(min(self.cutoff, size), dtype=torch.float64, device=like.device)[:, None]
        n = torch.arange(size, dtype=torch.float64, device=like.device)
        rows = torch.cos(math.pi / size * (n + 0.5) * k)
        rows = rows / rows.square().sum(1, keepdim=True).sqrt()
        return rows.T @ rows
