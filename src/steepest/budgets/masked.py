"""A budget of which only some coordinates may be spent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import fits
from steepest.budgets import coordinatewise, rounding
from steepest.budgets.contract import Budget, Limits, ceiling, is_sparse


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Masked:
    """The set {δ in B : δᵢ = 0 wherever the mask is false}.

    The frozen coordinates are limits of the inner budget, so nothing of ε is wasted on them: extreme, projection
    and samples are those of the inner set in the free subspace.

    Args:
        inner: any budget.
        mask: bool, broadcastable against one example, or one mask per example [N, *features]; true may move.

    Raises:
        UsageError: the mask is not boolean or does not fit the input.

    >>> from steepest.budgets.l2 import L2
    >>> Masked(L2(0.5), torch.tensor([True, False])).extreme(torch.tensor([[3.0, 4.0]]))
    tensor([[0.5000, 0.0000]])
    """

    inner: Budget
    mask: Tensor

    def __post_init__(self) -> None:
        mask = torch.as_tensor(self.mask)
        if mask.dtype != torch.bool:
            raise UsageError(
                f"Masked: the mask has type {mask.dtype}; give booleans, true where a coordinate may move "
                "(mask > 0 turns numbers into such a mask)."
            )
        object.__setattr__(self, "mask", mask)

    def __repr__(self) -> str:
        return f"Masked({self.inner!r}, {int(self.mask.sum())} of {self.mask.numel()} free)"

    @property
    def epsilon(self) -> float | Tensor:
        """The inner budget's ε."""
        return self.inner.epsilon

    @property
    def convex(self) -> bool:
        """Whether the inner set is convex."""
        return self.inner.convex

    @property
    def separable(self) -> bool:
        """Whether the inner set is a product of intervals."""
        return self.inner.separable

    @property
    def sparse(self) -> bool:
        """Whether the inner set is sparse."""
        return is_sparse(self.inner)

    @property
    def monotone(self) -> bool:
        """Whether rounding towards x stays inside the inner set."""
        return self.inner.monotone

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        mask = self.mask
        fits_one = mask.ndim <= len(shape) - 1 and fits(tuple(mask.shape), tuple(shape[1:]))
        fits_all = mask.ndim == len(shape) and fits(tuple(mask.shape), tuple(shape))
        if not (fits_one or fits_all):
            raise UsageError(
                f"Masked: a mask of shape {tuple(mask.shape)} does not fit inputs of shape {tuple(shape)}. Give one "
                "that broadcasts against one example, or one per example."
            )
        if fits_one:
            mask = mask.reshape(*[1] * (len(shape) - mask.ndim), *mask.shape)
        return replace(self, inner=self.inner.fitted(shape), mask=mask)

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        mask = self.mask[index.to(self.mask.device)] if self.mask.shape[0] > 1 else self.mask
        return replace(self, inner=self.inner.rows(index), mask=mask)

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, inner=self.inner.scaled(factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return self.inner.extreme(self._free(g), self._cut(g, limits))

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return self.inner.support(self._free(g), self._cut(g, limits))

    def ceiling(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Iterated.ceiling`."""
        return ceiling(self.inner, self._free(g), self._cut(g, limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return self.inner.project(self._free(delta), self._cut(delta, limits))

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.ascend`."""
        return self.inner.ascend(self._free(g), self._cut(g, limits))

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the free subspace's part of the inner set."""
        return self.inner.sample(like, stream, step, self._cut(like, limits))

    def norm(self, delta: Tensor) -> Tensor:
        """Return the inner norm; infinite where a frozen coordinate moved."""
        return self._moved(delta, self.inner.norm(delta))

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the inner gauge; infinite where a frozen coordinate moved."""
        return self._moved(delta, self.inner.gauge(delta))

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """See `Settling.settled`; a frozen coordinate is x itself."""
        return torch.where(self._mask(x), rounding.settled(self.inner, x, delta), x)

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """See `Settling.gauge_within`; a frozen coordinate is forgiven nothing."""
        return self._moved(delta, rounding.gauge_within(self.inner, delta, ulp))

    def hull(self, like: Tensor) -> Limits:
        """Return the inner hull, closed at 0 where the mask is false."""
        low, high = self.inner.hull(like)
        free = self._mask(like)
        return torch.where(free, low, 0.0), torch.where(free, high, 0.0)

    def _mask(self, like: Tensor) -> Tensor:
        return self.mask.to(like.device)

    def _free(self, v: Tensor) -> Tensor:
        # Zero before the inner set normalises: a frozen coordinate's gradient must not eat the budget.
        return torch.where(self._mask(v), v, torch.zeros_like(v))

    def _cut(self, like: Tensor, limits: Limits | None) -> Limits:
        side = torch.where(self._mask(like), torch.inf, 0.0).double()
        return coordinatewise.cut((-side, side), limits)

    def _moved(self, delta: Tensor, size: Tensor) -> Tensor:
        frozen = torch.where(self._mask(delta), torch.zeros_like(delta), delta) != 0
        return torch.where(frozen.flatten(1).any(1), torch.full_like(size, torch.inf), size)
