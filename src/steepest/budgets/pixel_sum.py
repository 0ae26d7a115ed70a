"""Few pixels, in any direction of colour: the lengths of all channel vectors add up to at most ε."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import inner
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.l1 import L1
from steepest.budgets.pixel_l2 import apart, lengths, places, together
from steepest.budgets.sampling import accepted
from steepest.budgets.splitting import shrunk

_HALVINGS = 60
_NEWTON = 12


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PixelSum:
    """The set {δ : Σ_p ‖δ_p‖₂ ≤ ε}, δ_p the channels (first feature axis) of δ at position p (a group-sparse ball).

    Without limits extreme(g) moves the one position with the largest ‖g_p‖₂, and support(g) = ε·max ‖g_p‖₂; the
    projection is the block soft-threshold. Cut by the box, one price λ of length divides ε among the positions, and
    each answers by itself: on the ray clip(t·g_p), or clip(s·v_p), at the t or s that λ sets. λ is halved to the
    precision of float64, and the two neighbours are mixed so that all of ε is spent: exact up to round-off.
    One channel gives L1; inputs of one axis are one position.

    Args:
        epsilon: in data units: a number or one per example [N].

    Raises:
        UsageError: ε is negative, not finite, or differs between features.

    Source: Yuan & Lin 2006 (the free block soft-threshold).

    >>> PixelSum(0.5).extreme(torch.tensor([[[3.0, 0.0], [4.0, -2.0]]]))
    tensor([[[0.3000, 0.0000],
             [0.4000, -0.0000]]])
    """

    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "PixelSum"))

    def __repr__(self) -> str:
        return f"PixelSum({eps.text(self.epsilon)})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "PixelSum"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "PixelSum")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        if limits is None:
            return self._along(g, L1(self._radius(g)).extreme(lengths(g))).to(g.dtype)
        return self._priced(g, limits, _steepest, torch.inf)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        if limits is None:
            size = lengths(delta)
            kept = L1(self._radius(delta)).project(size)
            share = torch.where(kept < size, kept / size, 1.0).reshape(-1, 1)
            return together(apart(delta).double() * share, delta).to(delta.dtype)
        return self._priced(delta, limits, _nearest, 1.0)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ε spread evenly over the 1 % of the positions with the largest ‖g_p‖₂ that can still move."""
        free = g
        if limits is not None:
            free = torch.where(torch.where(g > 0, limits[1] > 0, limits[0] < 0), g, torch.zeros_like(g))
        return self._along(free, L1(self._radius(g)).ascend(lengths(free))).to(g.dtype)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the ball: lengths are Gamma(C) draws over their sum and one Exp(1).

        Cut by limits, draws that leave them are drawn again, a few times; then they are clipped, and more mass lies
        on the faces of the box.
        """
        count, channels = places(like), like.shape[1] if like.ndim > 1 else 1
        radius = self._radius(like)[:, None]

        def draw(attempt: int) -> Tensor:
            source = stream.split(attempt)
            waiting = source.exponential(2 * step, (channels * count + 1,))
            size = waiting[:, 1:].reshape(-1, channels, count).sum(1)
            size = size / (size.sum(1, keepdim=True) + waiting[:, :1]) * radius
            return self._along(source.normal(2 * step + 1, tuple(like.shape[1:])), size)

        return accepted(draw, self.gauge, limits)

    def norm(self, delta: Tensor) -> Tensor:
        """Return Σ‖δ_p‖₂."""
        return lengths(delta).sum(1)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return Σ‖δ_p‖₂/ε."""
        return eps.ratio(self.norm(delta), self._radius(delta))

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε, ε)."""
        side = eps.per_coordinate(self.epsilon, like)
        return -side, side

    def _radius(self, like: Tensor) -> Tensor:
        return eps.per_example(self.epsilon, like, "PixelSum")

    def _along(self, v: Tensor, size: Tensor) -> Tensor:
        """Return vectors of length `size` [N, P] along those of v, float64."""
        rows, long = apart(v).double(), lengths(v).reshape(-1, 1)
        unit = torch.where(long > 0, rows / long, 0.0)
        return together(unit * size.reshape(-1, 1), v)

    def _priced(self, v: Tensor, limits: Limits, answer: Callable[[_Rays, Tensor], Tensor], most: float) -> Tensor:
        """Return the rays at `answer`(price), at the price λ ≥ 0 where Σ‖δ_p‖ = ε; at t = `most` where all fits."""
        radius, shape = self._radius(v), (v.shape[0], places(v))
        wide = apart(v).double()
        caps = torch.where(wide >= 0, apart(limits[1].expand(v.shape)), -apart(limits[0].expand(v.shape))).double()
        caps = caps.minimum(radius.repeat_interleave(shape[1])[:, None])
        top = lengths(v).amax(1) if shape[1] else torch.zeros_like(radius)
        top = torch.where(top > 0, top, 1.0) if most > 1 else torch.ones_like(top)
        rays = _Rays.of(wide.abs() / top.repeat_interleave(shape[1])[:, None], caps)

        def at(price: Tensor) -> tuple[Tensor, Tensor]:
            sizes = rays.reached(answer(rays, price.repeat_interleave(shape[1])))
            return sizes, sizes.square().sum(1).sqrt().reshape(shape).sum(1)

        low, high = torch.zeros_like(radius), torch.zeros_like(radius)
        if shape[1]:
            high = rays.long.reshape(shape).amax(1)
        all_of_it = rays.reached(torch.full_like(rays.long, most))
        spent = all_of_it.square().sum(1).sqrt().reshape(shape).sum(1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = at(middle)[1] <= radius
            low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
        (more, too_much), (less, enough) = at(low), at(high)
        share = torch.where(too_much > enough, (radius - enough) / (too_much - enough), 0.0).clamp(0, 1)
        share = torch.where(too_much <= radius, 1.0, share).repeat_interleave(shape[1])[:, None]
        mixed = torch.lerp(less, more, share)
        free = (spent <= radius).repeat_interleave(shape[1])[:, None]
        found = together(torch.where(free, all_of_it, mixed) * wide.sign(), v)
        return shrunk(found, self.gauge(found)).to(v.dtype)


@final
@dataclass(frozen=True, slots=True)
class _Rays:
    """The rays min(t·u, caps) of M positions, cut into segments by the t at which a channel reaches its cap.

    Attributes:
        u, caps: [M, C]; u is 0 where nothing can move.
        breaks: [M, C], the ends of the segments, rising; ∞ for channels that do not move.
        held: [M, C + 1], Σ cap² of the channels that have arrived, per segment.
        rising: [M, C + 1], Σ u² of the others.
        long: [M], ‖u‖₂.
    """

    u: Tensor
    caps: Tensor
    breaks: Tensor
    held: Tensor
    rising: Tensor
    long: Tensor

    @staticmethod
    def of(u: Tensor, caps: Tensor) -> _Rays:
        u = torch.where(caps > 0, u, 0.0)
        breaks, order = torch.where(u > 0, caps / u, torch.inf).sort(1)
        squares, stops = u.square().gather(1, order), torch.where(u > 0, caps, 0.0).square().gather(1, order)
        none = torch.zeros_like(u[:, :1])
        held = torch.cat([none, stops.cumsum(1)], 1)
        rising = torch.cat([squares.flip(1).cumsum(1).flip(1), none], 1)
        return _Rays(u, caps, breaks, held, rising, rising[:, 0].sqrt())

    def segment(self, value: Tensor, price: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (start, held, rising) of the segment where `value`, falling, given at the breaks, passes `price`."""
        passed = (value > price[:, None]).sum(1, keepdim=True)
        starts = torch.cat([torch.zeros_like(self.breaks[:, :1]), self.breaks], 1)
        start, held, rising = (part.gather(1, passed).squeeze(1) for part in (starts, self.held, self.rising))
        return start, held, rising

    def slope(self) -> Tensor:
        """Return ‖min(t·u, caps)‖/t at the breaks, [M, C]: it falls along the ray."""
        return (self.held[:, :-1] / self.breaks.square() + self.rising[:, :-1]).sqrt()

    def reached(self, t: Tensor) -> Tensor:
        """Return min(t·u, caps), [M, C]."""
        far = torch.where(self.u > 0, t[:, None] * self.u, 0.0)
        return torch.minimum(torch.where(far.isnan(), 0.0, far), self.caps)


def _steepest(rays: _Rays, price: Tensor) -> Tensor:
    """Return the t that maximises ⟨u, δ⟩ − price·‖δ‖ along each ray: where ‖δ(t)‖/t = price."""
    _, held, rising = rays.segment(rays.slope(), price)
    rest = (price.square() - rising).clamp_min(0)
    t = torch.where(rest > 0, (held / rest).sqrt(), torch.inf)
    return torch.where(price >= rays.long, 0.0, t)


def _nearest(rays: _Rays, price: Tensor) -> Tensor:
    """Return the s that minimises ½‖δ − u‖² + price·‖δ‖ along each ray: where ‖δ(s)‖(1 − s)/s = price.

    Within a segment that is f(s) = √(held/s² + rising)·(1 − s), convex and falling: Newton from the left stays left.
    """
    start, held, rising = rays.segment(rays.slope() * (1 - rays.breaks.clamp_max(1)), price)
    stuck, moving = held.sqrt(), rising.sqrt()
    s = start.maximum(torch.where(stuck > 0, stuck / (stuck + price), 0.0))
    s = s.maximum(torch.where(moving > 0, 1 - price / moving, 0.0)).clamp(torch.finfo(s.dtype).tiny, 1)
    for _ in range(_NEWTON):
        slope = (held / s.square() + rising).sqrt()
        falls = held * (1 - s) / (s**3 * slope) + slope
        step = (slope * (1 - s) - price) / falls
        s = torch.where(step > 0, s + step, s).clamp_max(1)
    return torch.where(price >= rays.long, 0.0, s)
