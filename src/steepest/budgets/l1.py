"""The L1 ball: the sum of all changes is at most ε."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import flat, inner
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.sampling import split, uniform_in_ball

SPREAD = 0.01
"""Share of the coordinates that one ascent step moves (the 99th percentile of Tramèr & Boneh 2019)."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class L1:
    """The set {δ : Σ|δᵢ| ≤ ε}.

    Without limits extreme(g) moves the one coordinate with the largest |gᵢ|, and support(g) = ε·max|gᵢ|. Cut by
    the box the maximiser fills coordinates to their limits in order of |gᵢ|, the last one in part (a fractional
    knapsack); the projection is clip(soft-threshold), with the threshold found exactly among the 2d breakpoints.

    Args:
        epsilon: in data units: a number or one per example [N].

    Raises:
        UsageError: ε is negative, not finite, or differs between features.

    Source: Duchi et al. 2008 (the free projection); Croce & Hein 2021, arXiv 2103.01208 (inside the box).

    >>> L1(0.5).extreme(torch.tensor([[3.0, -4.0]]))
    tensor([[ 0.0000, -0.5000]])
    """

    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "L1"))

    def __repr__(self) -> str:
        return f"L1({eps.text(self.epsilon)})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "L1"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "L1")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        wide, radius = flat(g), eps.per_example(self.epsilon, g, "L1")[:, None]
        caps = _caps(wide, limits, g).minimum(radius)
        order = wide.abs().argsort(dim=1, descending=True, stable=True)
        sorted_caps = caps.gather(1, order)
        spent_before = sorted_caps.cumsum(1) - sorted_caps
        amount = (radius - spent_before).clamp_min(0).minimum(sorted_caps)
        filled = torch.zeros_like(caps).scatter(1, order, amount)
        return (filled * wide.sign()).reshape(g.shape).to(g.dtype)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`; clipping after the soft threshold is exact because 0 lies between the limits."""
        wide = flat(delta).double()
        size, caps = wide.abs(), _caps(wide, limits, delta)
        radius = eps.per_example(self.epsilon, delta, "L1")
        kept = (size - _threshold(size, caps, radius)[:, None]).clamp_min(0).minimum(caps)
        # The threshold is rounded relative to the largest entry, the sum must be right relative to ε.
        total = kept.sum(1)
        kept = kept * torch.where(total > radius, radius / total, 1.0)[:, None]
        return (kept * wide.sign()).reshape(delta.shape).to(delta.dtype)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ε spread evenly, with the signs of g, over the largest 1 % of |g| that can still move."""
        wide = flat(g)
        movable = wide.abs() * (_caps(wide, limits, g) > 0)
        count = max(1, math.ceil(SPREAD * wide.shape[1]))
        size, where = movable.topk(min(count, wide.shape[1]), dim=1)
        share = (size > 0).to(g.dtype)
        share = share / share.sum(1, keepdim=True).clamp_min(1)
        step = torch.zeros_like(wide).scatter(1, where, share) * wide.sign()
        return step.reshape(g.shape) * eps.per_coordinate(self.epsilon, g).to(g.dtype)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the ball: d of d + 1 normalised Exp(1) draws, with random signs.

        Cut by limits, a draw that leaves them is replaced by the end of a walk of random splits (see `sampling`).
        """
        count, size = like.shape[0], flat(like).shape[1]
        weight = stream.exponential(2 * step, (size + 1,))
        signs = stream.signs(2 * step + 1, (size,))
        if limits is not None:
            low, high = (flat(side.expand(like.shape).double()) for side in limits)
            weight[:, :size] *= low != high
            signs = torch.where(low == 0, 1.0, torch.where(high == 0, -1.0, signs))
        radius = eps.per_example(self.epsilon, like, "L1")[:, None]
        draw = weight[:, :size] * (radius / weight.sum(1, keepdim=True)) * signs
        if limits is not None:
            slack = (radius - draw.clamp(low, high).abs().sum(1, keepdim=True)).clamp_min(0)
            draw = uniform_in_ball(draw, (low, high), slack, split, stream, step)
        return draw.reshape(count, *like.shape[1:])

    def norm(self, delta: Tensor) -> Tensor:
        """Return Σ|δᵢ|."""
        return flat(delta).double().abs().sum(1)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return Σ|δᵢ|/ε."""
        return eps.ratio(self.norm(delta), eps.per_example(self.epsilon, delta, "L1"))

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε, ε)."""
        side = eps.per_coordinate(self.epsilon, like)
        return -side, side


def _caps(v: Tensor, limits: Limits | None, like: Tensor) -> Tensor:
    """Return how far each coordinate may go in the direction of v, float64 [N, d]; nowhere where v = 0."""
    if limits is None:
        far = torch.full(v.shape, torch.inf, dtype=torch.float64, device=v.device)
    else:
        low, high = (flat(side.expand(like.shape)) for side in limits)
        far = torch.where(v > 0, high, -low).double()
    return torch.where(v == 0, 0.0, far)


def _threshold(size: Tensor, caps: Tensor, radius: Tensor) -> Tensor:
    """Return the λ ≥ 0 with Σ min(max(sizeᵢ − λ, 0), capᵢ) = radius, float64 [N]; 0 where nothing must shrink.

    The sum is piecewise linear in λ; coordinate i contributes slope −1 for sizeᵢ − capᵢ < λ < sizeᵢ. Going down
    from the largest breakpoint, the sum at each of them is a running total of slope times gap.
    """
    if not size.shape[1]:
        return radius.new_zeros(radius.shape)
    top, bottom = size, (size - caps).clamp_min(0)
    breaks, order = torch.cat([top, bottom], 1).sort(1, descending=True)
    slope = torch.cat([torch.ones_like(top), -torch.ones_like(bottom)], 1).gather(1, order).cumsum(1)
    gaps = torch.cat([breaks[:, :-1] - breaks[:, 1:], breaks[:, -1:]], 1)
    total = torch.cat([torch.zeros_like(breaks[:, :1]), (slope * gaps).cumsum(1)], 1)
    full = torch.minimum(size, caps).sum(1)
    segment = (total[:, 1:] < radius[:, None]).sum(1, keepdim=True).clamp_max(breaks.shape[1] - 1)
    start, reached = breaks.gather(1, segment), total.gather(1, segment)
    steep = slope.gather(1, segment).clamp_min(1)
    found = (start - (radius[:, None] - reached) / steep).squeeze(1)
    return torch.where(full <= radius, torch.zeros_like(full), found.clamp_min(0))
