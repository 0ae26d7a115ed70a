"""Changes of a given form alone: combinations of a few vectors, or slow cosines, within another budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat, inner
from steepest.budgets import rounding
from steepest.budgets.contract import Budget, Limits, ceiling
from steepest.budgets.l2 import L2
from steepest.budgets.spans import Cosines, Span, Vectors
from steepest.budgets.splitting import Projection, farthest, length, nearest, require_convex, shares, shrunk

_OFF = 2.0**-28
"""The share of δ that may point out of the subspace, besides one unit in the last place per coordinate."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Subspace:
    """The set {δ in an inner budget, δ = Σ cⱼ bⱼ}: only combinations of the basis vectors bⱼ.

    With P the projection on their span and L2 inside, P commutes with the ball: extreme(g) = ε·Pg/‖Pg‖₂ and
    project(v) = ball(Pv), exact. For other inner budgets, and where the box cuts, both are iterated to `accuracy`
    (the share of the gain, or of the distance, that may be missing). Where values at the limits of their box leave the
    common set no interior, the iteration may end before that: the answer is inside, and may not be the best.
    Hardly any rounded point lies in a subspace: a point counts as inside if its distance from it is at most one unit
    in the last place per coordinate and 2⁻²⁸ of its length; the inner budget and the box hold exactly.

    Args:
        inner: a convex budget.
        span: vectors [m, *features] as a tensor (orthonormal or not), or another `Span`.

    Raises:
        UsageError: the inner budget is not convex, or the vectors do not fit the input.

    >>> Subspace(L2(1.0), torch.tensor([[1.0, 1.0, 0.0]])).extreme(torch.tensor([[1.0, 1.0, 5.0]]))
    tensor([[0.7071, 0.7071, 0.0000]])
    """

    inner: Budget
    span: Tensor | Span
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    accuracy: ClassVar[float] = 1e-5

    def __post_init__(self) -> None:
        require_convex(self.inner, "Subspace")
        if isinstance(self.span, Tensor):
            object.__setattr__(self, "span", Vectors(self.span))

    def __repr__(self) -> str:
        return f"Subspace({self.inner!r}, {self._span!r})"

    @property
    def epsilon(self) -> float | Tensor:
        """The inner budget's ε."""
        return self.inner.epsilon

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        self._span.fitted(tuple(shape[1:]))
        return replace(self, inner=self.inner.fitted(shape))

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, inner=self.inner.rows(index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, inner=self.inner.scaled(factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`; a coordinate without a gain of its own moves with the others."""
        along = self._span.onto(g)
        if isinstance(self.inner, L2):
            free = self._back(self._span.onto(self.inner.extreme(along)))
            return self._iterated(along, limits, free, _within(free, limits), pull=False).to(g.dtype)
        none = torch.zeros(g.shape[0], dtype=torch.bool, device=g.device)
        return self._iterated(along, limits, torch.zeros_like(along), none, pull=False).to(g.dtype)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def ceiling(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Iterated.ceiling`: the span pays for what is at right angles to it, the inner budget for the rest."""
        along = self._span.onto(g.double())
        best = ceiling(self.inner, along, limits)
        if isinstance(self.inner, L2):  # its maximiser along Pg lies in the span
            best = best.minimum(self.inner.support(along))
        if isinstance(self.inner, L2) and limits is None:
            return best
        shape = along.shape
        sides = self._sides(self.inner, shape, limits)
        part = shares(*sides, flat(along), length(self.inner.extreme(along, limits)))[1].reshape(shape)
        return best.minimum(ceiling(self.inner, part + self._span.onto(along - part), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        along = self._span.onto(delta)
        # The nearest point of the span, where it is allowed; in a ball, P and the ball commute.
        free = self._back(self._span.onto(self.inner.project(along))) if isinstance(self.inner, L2) else along
        fits = _within(free, limits) & (self.inner.gauge(free) <= 1)
        inside = _within(delta.double(), limits) & (self.gauge(delta) <= 1)
        found = self._iterated(along, limits, free, fits, pull=True)
        return torch.where(expand(inside, delta), delta, found.to(delta.dtype))

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the inner budget's step along Pg, back in the span, at gauge 1."""
        step = self._span.onto(self.inner.ascend(self._span.onto(g)))
        gauge = expand(self.inner.gauge(step), step)
        return torch.where((gauge > 0) & gauge.isfinite(), step / gauge, 0.0).to(g.dtype)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the ball of the subspace, if the inner budget is L2; else projected inner draws.

        Where limits cut, the draws are projected too, and more mass lies on the boundary.
        """
        if isinstance(self.inner, L2):
            shape = tuple(like.shape[1:])
            normal = self._span.onto(stream.normal(2 * step, shape))
            rest = stream.normal(2 * step + 1, (2,)).square().sum(1)
            far = (flat(normal).square().sum(1) + rest).sqrt()
            ones = torch.ones_like(far)
            free = normal / expand(far, normal) * expand(ones / self.inner.gauge(_unit(normal)), normal)
        else:
            free = self.inner.sample(like, stream, step, limits)
        return self.project(free, limits)

    def norm(self, delta: Tensor) -> Tensor:
        """Return the inner norm; infinite outside the subspace."""
        return torch.where(self._off(delta) <= _OFF * length(delta), self.inner.norm(delta), torch.inf)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the inner gauge; infinite where more than 2⁻²⁸ of δ points out of the subspace."""
        return torch.where(self._off(delta) <= _OFF * length(delta), self.inner.gauge(delta), torch.inf)

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """See `Settling.settled`: as the inner budget rounds."""
        return rounding.settled(self.inner, x, delta)

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """Return the inner gauge; infinite where δ is farther from the subspace than rounding can carry it."""
        near = self._off(delta) <= length(ulp) + _OFF * length(delta)
        return torch.where(near, rounding.gauge_within(self.inner, delta, ulp), torch.inf)

    def hull(self, like: Tensor) -> Limits:
        """Return ∓ε√Pᵢᵢ for L2; for other inner budgets their hull, where the span moves the coordinate at all."""
        low, high = self.inner.hull(like)
        reach = self._span.reach(like)
        share = reach if isinstance(self.inner, L2) else (reach > 0).double()
        return low * share, high * share

    @property
    def _span(self) -> Span:
        assert not isinstance(self.span, Tensor)
        return self.span

    def _back(self, delta: Tensor) -> Tensor:
        return shrunk(delta, self.inner.gauge(delta))

    def _off(self, delta: Tensor) -> Tensor:
        return length(delta.double() - self._span.onto(delta))

    def _iterated(self, along: Tensor, limits: Limits | None, free: Tensor, fits: Tensor, *, pull: bool) -> Tensor:
        """Return `free` where it fits, else the common point of the span and of the cut inner budget."""
        rest = (~fits).nonzero().squeeze(1)
        if not rest.numel():
            return free
        part, held = along[rest], self.inner.rows(rest)
        cut = None if limits is None else _rows(limits, along, rest)
        shape = part.shape
        solve = nearest if pull else farthest
        ours, theirs = solve(*self._sides(held, shape, cut), flat(part), length(held.extreme(part, cut)))
        ours, theirs = ours.reshape(shape), theirs.reshape(shape)
        # The point of the cut budget is in the span too once the two agree; if not, go back from the span's own.
        agree = self._off(theirs) <= _OFF / 4 * length(theirs)
        share = torch.ones(len(rest), dtype=torch.float64, device=along.device)
        if cut is not None:
            low, high = (flat(side) for side in cut)
            v = flat(ours)
            room = torch.where(v > high, high / v, torch.where(v < low, low / v, 1.0))
            share = room.amin(1) if room.shape[1] else share
        back = shrunk(ours * expand(share, ours), held.gauge(ours * expand(share, ours)))
        return free.index_copy(0, rest, torch.where(expand(agree, theirs), theirs, back))

    def _sides(self, held: Budget, shape: torch.Size, cut: Limits | None) -> tuple[Projection, Projection]:
        """Return the projections on the span and on the cut inner budget, of flattened rows."""
        return (
            lambda p: flat(self._span.onto(p.reshape(shape))),
            lambda p: flat(held.project(p.reshape(shape), cut)),
        )


def low_frequency(inner: Budget, cutoff: int) -> Subspace:
    """Return the changes within a budget that hold only the `cutoff` slowest cosines (DCT-II) along each image axis.

    Cosines are those of the last two axes, each channel by itself, so cutoff = 1 moves the mean of a channel only and
    a cutoff of at least height and width is no restriction.

    Raises:
        UsageError: the cutoff is not a whole number of at least 1, or the budget is not convex.

    Source: Guo, Frank & Weinberger 2019, arXiv 1809.08758.

    >>> low_frequency(L2(1.0), cutoff=1).extreme(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]))
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    return Subspace(inner, Cosines(cutoff))


def _unit(v: Tensor) -> Tensor:
    """Return the first unit vector for each row: its gauge is 1/ε in every ball."""
    unit = torch.zeros_like(flat(v))
    unit[:, :1] = 1
    return unit.reshape(v.shape)


def _within(delta: Tensor, limits: Limits | None) -> Tensor:
    if limits is None:
        return torch.ones(delta.shape[0], dtype=torch.bool, device=delta.device)
    return flat((delta >= limits[0]) & (delta <= limits[1])).all(1)


def _rows(limits: Limits, like: Tensor, index: Tensor) -> Limits:
    low, high = (side.expand(like.shape)[index] for side in limits)
    return low, high
