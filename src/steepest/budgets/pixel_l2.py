"""Every pixel by at most ε: the channel vector of each position has a bounded length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import inner
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.l2 import L2


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PixelL2:
    """The set {δ : ‖δ_p‖₂ ≤ ε for every position p}, δ_p the channels (first feature axis) of δ there.

    The set is a product of balls, one per position: extreme(g)_p = ε·g_p/‖g_p‖₂ and support(g) = ε Σ‖g_p‖₂; cut by
    the box, each ball is answered by itself, exactly (see `L2`). One channel gives L∞; inputs of one axis are one
    position.

    Args:
        epsilon: in data units: a number or one per example [N].

    Raises:
        UsageError: ε is negative, not finite, or differs between features.

    >>> PixelL2(0.5).extreme(torch.tensor([[[3.0, 0.0], [4.0, -2.0]]]))
    tensor([[[ 0.3000,  0.0000],
             [ 0.4000, -0.5000]]])
    """

    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "PixelL2"))

    def __repr__(self) -> str:
        return f"PixelL2({eps.text(self.epsilon)})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "PixelL2"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "PixelL2")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return together(self._balls(g).extreme(apart(g), _apart(limits, g)), g)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return together(self._balls(delta).project(apart(delta), _apart(limits, delta)), delta)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ε·g_p/‖g_p‖₂ at every position."""
        return self.extreme(g)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return independent points, each uniform in its position's ball (as `L2.sample`): the uniform law."""
        rows = apart(like)
        streams = stream.spread(places(like))
        return together(self._balls(like).sample(rows, streams, step, _apart(limits, like)), like)

    def norm(self, delta: Tensor) -> Tensor:
        """Return max over p of ‖δ_p‖₂."""
        size = lengths(delta)
        return size.amax(1) if size.shape[1] else size.sum(1)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return max over p of ‖δ_p‖₂/ε."""
        return eps.ratio(self.norm(delta), eps.per_example(self.epsilon, delta, "PixelL2"))

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε, ε)."""
        side = eps.per_coordinate(self.epsilon, like)
        return -side, side

    def _balls(self, like: Tensor) -> L2:
        return L2(eps.per_example(self.epsilon, like, "PixelL2").repeat_interleave(places(like)))


def places(like: Tensor) -> int:
    """Return how many positions an example has."""
    return math.prod(like.shape[2:])


def apart(v: Tensor) -> Tensor:
    """Return the channel vectors of all positions as rows [N · P, C]."""
    channels = v.shape[1] if v.ndim > 1 else 1
    return v.reshape(v.shape[0], channels, places(v)).transpose(1, 2).reshape(v.shape[0] * places(v), channels)


def together(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows [N · P, C] in the shape of `like`."""
    return rows.reshape(like.shape[0], places(like), rows.shape[1]).transpose(1, 2).reshape(like.shape)


def lengths(v: Tensor) -> Tensor:
    """Return the length of the channel vector at every position, float64 [N, P]."""
    return apart(v).double().square().sum(1).sqrt().reshape(v.shape[0], places(v))


def _apart(limits: Limits | None, like: Tensor) -> Limits | None:
    if limits is None:
        return None
    low, high = (apart(side.expand(like.shape)) for side in limits)
    return low, high
