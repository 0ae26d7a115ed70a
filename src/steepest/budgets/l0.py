"""At most k values, or at most k whole pixels, may change, each as far as the box lets it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat, inner
from steepest.budgets import coordinatewise
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits

_WHOLE = 1 + 2.0**-30
"""A count that misses a whole number by so little is that number: 3 · (1 − 2⁻⁴⁰) values are three."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class L0:
    """The set {δ : at most k of the δᵢ are not 0, |δᵢ| ≤ reach}; with `pixels`, at most k pixels of [C, *positions].

    Cut by limits lᵢ ≤ δᵢ ≤ uᵢ, extreme moves the k largest gains max(gᵢlᵢ, gᵢuᵢ) to their limits; the projection
    keeps the k largest vᵢ² − (vᵢ − clip vᵢ)²; for pixels both are sums over channels. Both are exact. The set is not
    convex. How far a value may go is said by the box, or by `reach` where there is none; `scaled` scales k alone, and
    of a fractional k the whole part counts.

    Args:
        epsilon: k: a number or one per example [N].
        pixels: count positions, all channels (the first feature axis) of which move together.
        reach: how far a value may move at most, in data units.

    Raises:
        UsageError: k or the reach is not allowed; neither box nor reach bounds a value that should move.

    Source: Croce & Hein 2019, arXiv 1909.05040 (the projection inside the box).

    >>> L0(1, reach=0.5).extreme(torch.tensor([[3.0, -4.0]]))
    tensor([[ 0.0000, -0.5000]])
    """

    epsilon: float | Tensor
    pixels: bool = False
    reach: float = math.inf
    convex: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "L0"))
        if not (isinstance(self.reach, int | float) and self.reach >= 0):
            raise UsageError(f"L0: reach = {self.reach!r} is not allowed; give a number of at least 0, in data units.")

    def __repr__(self) -> str:
        pixels = ", pixels=True" if self.pixels else ""
        return f"L0({eps.text(self.epsilon)}{pixels}{'' if math.isinf(self.reach) else f', reach={self.reach:.6g}'})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "L0"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "L0")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """Return the set of factor · k values; the reach stays."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        corner = coordinatewise.extreme(self._reached(limits, g), g.double())
        gain = torch.where(g == 0, 0.0, g.double() * corner)
        if math.isinf(self.reach) and bool(gain.isinf().any()):
            raise UsageError(
                "L0 counts values and does not say how far they go: give the model a box, or L0(k, reach=0.5)."
            )
        return torch.where(self._kept(gain), corner, 0.0).to(g.dtype)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`: the sum of the k largest gains."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`; one nearest point, of several where sizes are equal."""
        wide = delta.double()
        clipped = coordinatewise.project(self._reached(limits, delta), wide)
        # v² − (v − c)², without the cancellation.
        return torch.where(self._kept(clipped * (2 * wide - clipped)), clipped, 0.0).to(delta.dtype)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the maximiser from where the search stands: k values to the end of their room."""
        return self.extreme(g, limits)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return k values (pixels) chosen uniformly among those that can move, each uniform between its limits."""
        low, high = (side.expand(like.shape) for side in self._reached(limits, like))
        if bool((low.isinf() | high.isinf()).any()):
            raise UsageError("L0 has no uniform points where nothing bounds a value: give a box, or L0(k, reach=0.5).")
        drawn = coordinatewise.sample((low, high), like, stream, 2 * step)
        ticket = stream.uniform(2 * step + 1, (self._grouped(drawn).shape[2],))
        can_move = self._grouped((low < high).double()).amax(1) > 0
        kept = self._best((ticket + 1) * can_move)
        return torch.where(self._ungrouped(kept, like), drawn, 0.0)

    def norm(self, delta: Tensor) -> Tensor:
        """Return how many values (pixels) are not 0; infinite where one goes beyond the reach."""
        count = (self._grouped(delta) != 0).any(1).double().sum(1)
        beyond = (flat(delta).double().abs() > self.reach).any(1)
        return torch.where(beyond, torch.inf, count)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the count over k; infinite where a value goes beyond the reach."""
        count = self.norm(delta)
        plain = eps.ratio(count, eps.per_example(self.epsilon, delta, "L0"))
        return torch.where(count <= self._allowed(delta), plain.clamp_max(1), plain)

    def hull(self, like: Tensor) -> Limits:
        """Return (−reach, reach), closed at 0 where k < 1."""
        allowed = self._allowed(like)
        side = expand(torch.where(allowed >= 1, torch.full_like(allowed, self.reach), 0.0), like)
        return -side, side

    def _allowed(self, like: Tensor) -> Tensor:
        return (eps.per_example(self.epsilon, like, "L0") * _WHOLE).floor()

    def _reached(self, limits: Limits | None, like: Tensor) -> Limits:
        return coordinatewise.cut(self.hull(like), limits)

    def _kept(self, worth: Tensor) -> Tensor:
        """Return bool like `worth`: the k values (pixels) worth most, and more than nothing."""
        return self._ungrouped(self._best(self._grouped(worth).sum(1)), worth)

    def _best(self, worth: Tensor) -> Tensor:
        """Return bool [N, P]: the k largest, and more than nothing."""
        order = worth.argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(worth.shape[1], device=worth.device).expand_as(order)
        first = torch.zeros_like(worth, dtype=torch.bool).scatter(1, order, rank < self._allowed(worth)[:, None])
        return first & (worth > 0)

    def _grouped(self, v: Tensor) -> Tensor:
        """Return v as [N, channels, places]; single values have one channel."""
        if not self.pixels or v.ndim < 2:
            return flat(v)[:, None]
        return v.reshape(v.shape[0], v.shape[1], math.prod(v.shape[2:]))

    def _ungrouped(self, kept: Tensor, like: Tensor) -> Tensor:
        if not self.pixels or like.ndim < 2:
            return kept.reshape(like.shape)
        return kept.reshape(like.shape[0], 1, *like.shape[2:])


def pixels(count: float | Tensor) -> L0:
    """The set of changes of at most `count` whole pixels: `L0(count, pixels=True)`.

    >>> pixels(3)
    L0(3, pixels=True)
    """
    return L0(count, pixels=True)
