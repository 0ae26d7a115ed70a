"""Several budgets at once: what each of them allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat, inner
from steepest.budgets import coordinatewise, rounding
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Budget, Limits, ceiling
from steepest.budgets.sampling import accepted
from steepest.budgets.splitting import farthest, length, nearest, require_convex, shares, shrunk

Pair = tuple[Tensor, Tensor]
Sides = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor, Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False, init=False)
class Intersection:
    """The set of the δ that lie in every member: `Intersection(L2(0.5), Linf(8 / 255))`.

    gauge = max over the members of their gauges; ε is the factor by which all are scaled, 1 at first. project and
    extreme are iterated until the members agree (`accuracy`: the share of the distance, or of the gain, that may be
    missing), are always inside, and no member's own maximiser, scaled back inside, gains more than `extreme`. So
    `support` lies below every member's by construction, and never above the true one.

    Args:
        members: two or more convex budgets.

    Raises:
        UsageError: fewer than two members, or one that is not convex.

    >>> from steepest.budgets.l2 import L2
    >>> from steepest.budgets.linf import Linf
    >>> Intersection(L2(1.0), Linf(0.8)).extreme(torch.tensor([[4.0, 1.0]]))
    tensor([[0.8000, 0.6000]])
    """

    members: tuple[Budget, ...]
    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    accuracy: ClassVar[float] = 1e-5

    def __init__(self, *members: Budget, epsilon: float | Tensor = 1.0) -> None:
        if len(members) < 2:
            raise UsageError("Intersection needs at least two budgets, e.g. Intersection(L2(0.5), Linf(8 / 255)).")
        for member in members:
            require_convex(member, "Intersection")
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "epsilon", eps.checked(epsilon, "Intersection"))

    def __repr__(self) -> str:
        return f"Intersection({', '.join(map(repr, self._scaled))})"

    @property
    def monotone(self) -> bool:
        """Whether rounding towards x stays inside every member."""
        return all(member.monotone for member in self.members)

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        epsilon = eps.resolved(self.epsilon, shape, "Intersection")
        eps.per_example(epsilon, torch.empty(shape, device="meta"), "Intersection")
        return self._made([member.fitted(shape) for member in self.members], epsilon)

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return self._made([member.rows(index) for member in self.members], eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return self._made(list(self.members), eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return self._common(g, limits, [m.extreme(g.double(), limits) for m in self._scaled], farthest)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def ceiling(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Iterated.ceiling`: the smallest of the members', or the sum over parts of g for each of them."""
        wide, members = g.double(), self._scaled
        answers = [member.extreme(wide, limits) for member in members]
        best = torch.stack([ceiling(member, wide, limits) for member in members]).amin(0)
        exact = torch.stack([self.gauge(answer) <= 1 for answer in answers]).any(0)
        rest = (~exact).nonzero().squeeze(1)
        if not rest.numel():
            return best
        part, held = wide[rest], self.rows(rest)
        cut = None if limits is None else _rows(limits, wide, rest)
        size = torch.stack([length(answer[rest]) for answer in answers]).amin(0)
        parts = held._shared(part, cut, size)
        met = torch.stack([ceiling(m, p, cut) for m, p in zip(held._scaled, parts, strict=True)]).sum(0)
        return best.index_copy(0, rest, best[rest].minimum(met))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return self._common(delta, limits, [m.project(delta.double(), limits) for m in self._scaled], nearest)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the step of the member that gains most once it is scaled to gauge 1 of all of them."""
        steps = torch.stack([self._full(member.ascend(g, limits).double()) for member in self._scaled])
        return _chosen(steps, torch.stack([inner(g, step) for step in steps])).to(g.dtype)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return draws of the members in turn, the first that lies in all: the uniform law, if theirs is.

        Where a few draws do not do, the first is scaled back inside, and more mass lies on the boundary.
        """
        members = self._scaled

        def draw(attempt: int) -> Tensor:
            return members[attempt % len(members)].sample(like, stream.split(attempt), step, limits)

        return accepted(draw, self.gauge, limits)

    def norm(self, delta: Tensor) -> Tensor:
        """Return the factor of the members that would just hold δ."""
        return torch.stack([member.gauge(delta) for member in self.members]).amax(0)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the largest gauge of the members."""
        return torch.stack([member.gauge(delta) for member in self._scaled]).amax(0)

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """See `Settling.settled`: as the first member rounds that is not content with rounding towards x."""
        rounds = next((m for m in self._scaled if not m.monotone), self._scaled[0])
        return rounding.settled(rounds, x, delta)

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """See `Settling.gauge_within`."""
        return torch.stack([rounding.gauge_within(member, delta, ulp) for member in self._scaled]).amax(0)

    def hull(self, like: Tensor) -> Limits:
        """Return the common part of the members' hulls."""
        bounds = self._scaled[0].hull(like)
        for member in self._scaled[1:]:
            bounds = coordinatewise.cut(bounds, member.hull(like))
        return bounds

    @property
    def _scaled(self) -> list[Budget]:
        if not isinstance(self.epsilon, Tensor):
            return list(self.members) if self.epsilon == 1 else [m.scaled(self.epsilon) for m in self.members]
        return [member.scaled(self.epsilon.reshape(-1)) for member in self.members]

    def _made(self, members: list[Budget], epsilon: float | Tensor) -> Self:
        return type(self)(*members, epsilon=epsilon)

    def _full(self, step: Tensor) -> Tensor:
        """Return `step` at gauge 1; 0 where no multiple of it is inside."""
        gauge = expand(self.gauge(step), step)
        return torch.where((gauge > 0) & gauge.isfinite(), step / gauge, 0.0)

    def _common(self, v: Tensor, limits: Limits | None, answers: list[Tensor], solve: Callable[..., Pair]) -> Tensor:
        """Return a member's own answer where it lies in all of them, which makes it exact; else the iterated one."""
        wide, inside = v.double(), [self.gauge(answer) <= 1 for answer in answers]
        best = _chosen(torch.stack(answers), torch.stack(inside).double())
        rest = (~torch.stack(inside).any(0)).nonzero().squeeze(1)
        if not rest.numel():
            return best.to(v.dtype)
        part, held = wide[rest], self.rows(rest)
        cut = None if limits is None else _rows(limits, wide, rest)
        found = [answer[rest] for answer in answers]
        size = torch.stack([length(answer) for answer in found]).amin(0)
        found += held._iterated(part, cut, size, solve)
        options = torch.stack([shrunk(option, held.gauge(option)) for option in found])
        worth = [inner(part, p) if solve is farthest else -length(part - p) for p in options]
        return best.index_copy(0, rest, _chosen(options, torch.stack(worth))).to(v.dtype)

    def _iterated(self, v: Tensor, cut: Limits | None, size: Tensor, solve: Callable[..., Pair]) -> list[Tensor]:
        """Return the common answer as each member sees it."""
        first, second = solve(*self._sides(v, cut, size))
        if len(self.members) == 2:
            return [first.reshape(v.shape), second.reshape(v.shape)]
        return [part.reshape(v.shape) for part in self._copied(second)]

    def _shared(self, g: Tensor, cut: Limits | None, size: Tensor) -> list[Tensor]:
        """Return parts of g, one for each member, whose sum is g: what each has to pay for at the common answer."""
        first, second = shares(*self._sides(g, cut, size))
        count = len(self.members)
        if count == 2:
            return [first.reshape(g.shape), second.reshape(g.shape)]
        parts = [part.reshape(g.shape) / count for part in self._copied(second)]
        missing = (g - torch.stack(parts).sum(0)) / count
        return [part + missing for part in parts]

    def _copied(self, copies: Tensor) -> Sequence[Tensor]:
        return copies.reshape(len(copies), len(self.members), -1).unbind(1)

    def _sides(self, v: Tensor, cut: Limits | None, size: Tensor) -> Sides:
        """Return (projection, projection, v, size); more than two members meet in a copy of δ for each."""
        members, (count, *features) = self._scaled, v.shape

        def onto(member: Budget, p: Tensor) -> Tensor:
            return flat(member.project(p.reshape(count, *features), cut))

        if len(members) == 2:
            return lambda p: onto(members[0], p), lambda p: onto(members[1], p), flat(v), size
        copies = flat(v)[:, None].expand(-1, len(members), -1)

        def mean(p: Tensor) -> Tensor:
            return flat(p.reshape(copies.shape).mean(1, keepdim=True).expand(copies.shape))

        def each(p: Tensor) -> Tensor:
            parts = p.reshape(copies.shape).unbind(1)
            return torch.cat([onto(member, part) for member, part in zip(members, parts, strict=True)], 1)

        return mean, each, flat(copies), size * len(members) ** 0.5


def _chosen(options: Tensor, worth: Tensor) -> Tensor:
    """Return, row by row, the option [K, N, *features] that is worth most [K, N]; the first of equals."""
    best = worth.argmax(0)
    return options[best, torch.arange(options.shape[1], device=options.device)]


def _rows(limits: Limits, like: Tensor, index: Tensor) -> Limits:
    low, high = (side.expand(like.shape)[index] for side in limits)
    return low, high
