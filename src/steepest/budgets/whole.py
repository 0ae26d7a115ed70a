"""No budget at all: whatever the box allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import flat
from steepest.budgets import coordinatewise
from steepest.budgets.contract import Limits


@final
@dataclass(frozen=True, slots=True)
class Whole:
    """The set of all δ: only the box limits, and every δ has gauge 0; for attacks that bring limits of their own.

    Rotations and translations are such: what `st.attack(..., budget=None)` means.

    >>> Whole().gauge(torch.tensor([[3.0, -1.0]]))
    tensor([0.], dtype=torch.float64)
    """

    epsilon: ClassVar[float] = math.inf
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        return self

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return self

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return self

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return coordinatewise.extreme(coordinatewise.cut(self.hull(g), limits), g)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return coordinatewise.support(coordinatewise.cut(self.hull(g), limits), g)

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return coordinatewise.project(coordinatewise.cut(self.hull(delta), limits), delta)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.ascend`."""
        return self.extreme(g, limits)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """See `Budget.sample`."""
        return coordinatewise.sample(coordinatewise.cut(self.hull(like), limits), like, stream, step)

    def norm(self, delta: Tensor) -> Tensor:
        """Return max |δᵢ|, for want of an ε that would say what to measure."""
        size = flat(delta).abs().double()
        return size.amax(1) if size.shape[1] else size.sum(1)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return 0: nothing is too far."""
        return torch.zeros(delta.shape[0], dtype=torch.float64, device=delta.device)

    def hull(self, like: Tensor) -> Limits:
        """Return farther than any box goes, in numbers that `like` can hold: infinities would turn into NaN."""
        far = torch.tensor(torch.finfo(like.dtype).max / 4, dtype=torch.float64, device=like.device)
        return -far, far
