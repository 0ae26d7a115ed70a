"""The points that an attack may use: a budget around x, inside the box, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self, final

import torch
from torch import Tensor

from steepest.basis.box import Box
from steepest.basis.rounding import inside, towards, ulp
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand
from steepest.budgets import coordinatewise, rounding
from steepest.budgets.contract import Budget, Discrete, Limits, ceiling

_INWARD = 1 - 2.0**-40
"""Balls are solved for this share of ε, so that the roundings of a float64 sum cannot carry a point outside."""

_FAR = 2.0**20
"""Times ε is farther than any box of the house goes; a power of two, so that nothing is rounded."""

_BLOCK = 2**17
"""So many numbers per thread are answered at a time in float64: what is in between stays in the processor's cache."""


@final
class Region:
    """The set {p : p − x in the budget, p in the box} for each of N examples, asked in points, not perturbations.

    Every point that comes back is feasible exactly: checked in float64, no coordinate leaves the box and no
    example exceeds ε, in float64, float32, float16 and bfloat16. `extreme` and `project` are exact up to that
    rounding towards x. Subspaces and equations hold for hardly any rounded number: those are kept to one unit in the
    last place per coordinate.

    Args:
        budget: the set of allowed perturbations; fitted to the shape of x here.
        box: the values that inputs may take.
        x: [N, *features], inside the box.

    Raises:
        UsageError: the budget or the box does not fit the shape of x.

    >>> from steepest.budgets.l2 import L2
    >>> region = Region(L2(0.5), Box(0, 1), torch.tensor([[0.9, 0.5]]))
    >>> region.extreme(torch.ones(1, 2))     # "rescale, then clip" would stop at (1.0, 0.8536)
    tensor([[1.0000, 0.9899]])
    """

    __slots__ = ("_ball", "_bounds", "_walls", "box", "budget", "x")

    def __init__(self, budget: Budget, box: Box, x: Tensor) -> None:
        self.budget: Budget = budget.fitted(tuple(x.shape))
        self.box = box
        self.x = x.detach()
        # The box in the precision of x, rounded inwards; a box of another shape is refused here, not in mid-search.
        lower, upper = box.bounds(self.x)
        self._walls = inside(lower, self.x, upper=False), inside(upper, self.x, upper=True)
        self._ball: Budget = self.budget if budget.separable else self.budget.scaled(_INWARD)
        self._bounds: tuple[Tensor, Tensor] | None = None

    def rows(self, index: Tensor) -> Self:
        """Return the region of the examples that `index` selects."""
        kept = self._with(self.budget.rows(index), self.x[index])
        kept._bounds = None if self._bounds is None else (self._bounds[0][index], self._bounds[1][index])
        return kept

    def scaled(self, factor: float | Tensor) -> Self:
        """Return the region of factor · budget around the same x; `factor` is a number or one per example [N]."""
        return self._with(self.budget.scaled(factor), self.x)

    def around(self, budget: Budget, x: Tensor) -> Self:
        """Return the region of a budget that is fitted already around other points of the same type, in the same box.

        What is known of the box is not found out again: for loops over many small batches.
        """
        return self._with(budget, x.detach())

    def loose(self) -> Self:
        """Return the region that only the box limits (and what the budget freezes): for searches beyond ε."""
        return self.scaled(_FAR)

    def _with(self, budget: Budget, x: Tensor) -> Self:
        """Return the region of a budget that is fitted already: one ε per example would be ambiguous if N = d."""
        made = object.__new__(type(self))
        made.budget, made.box, made.x, made._bounds = budget, self.box, x, None
        made._walls = self._walls
        made._ball = budget if budget.separable else budget.scaled(_INWARD)
        return made

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(lower, upper) of each coordinate over the set, in the precision of x, rounded towards x."""
        if self._bounds is None:
            self._bounds = self._blockwise(lambda part: part._bound(0)), self._blockwise(lambda part: part._bound(1))
        return self._bounds

    def limits(self) -> Limits:
        """Return how far the box lets each coordinate of δ = p − x go, float64."""
        return self.room(self.x)

    def room(self, point: Tensor) -> Limits:
        """Return how far the box lets each coordinate go from `point`, float64."""
        lower, upper = self.box.bounds(self.x)
        wide = point.double()
        # Exact bounds first: x may lie above a bound by the rounding of the bound alone.
        return (lower - wide).clamp_max(0), (upper - wide).clamp_min(0)

    def bounding(self, point: Tensor) -> Limits | None:
        """Return the room at `point` of values that the budget itself leaves unbounded; None where it bounds all.

        A count of values bounds none of them, so even a question that is about the budget alone needs the box there.
        """
        if self.budget.separable:
            return None
        low, high = self.budget.hull(self.x)
        if not bool((low.isinf() | high.isinf()).any()):
            return None
        down, up = self.room(point)
        return torch.where(low.isinf(), down, -torch.inf), torch.where(high.isinf(), up, torch.inf)

    def movable(self) -> Tensor:
        """Return bool, broadcastable against x: the coordinates that budget and box let move at all."""
        low, high = coordinatewise.cut(self.budget.hull(self.x), self.limits())
        return (low < 0) | (high > 0)

    def extreme(self, g: Tensor) -> Tensor:
        """Return the point of the set that maximises ⟨g, p − x⟩: FGSM's point, for every budget."""
        if self.budget.separable:
            if self._bounds is None:
                return self._blockwise(Region._corner, g)
            # From x by more than any bound, and back to the bound: where g is 0 the point stays at x.
            return self.x.add(g.sign().to(self.x.dtype), alpha=torch.finfo(self.x.dtype).max).clamp_(*self.bounds)
        return self._point(self._ball.extreme(g.double(), self.limits()))

    def support(self, g: Tensor) -> Tensor:
        """Return the largest first-order gain max ⟨g, p − x⟩ over the set, float64 [N]."""
        return self.budget.support(g.double(), self.limits())

    def ceiling(self, g: Tensor) -> Tensor:
        """Return what ⟨g, p − x⟩ exceeds nowhere in the set, float64 [N]; `support` where that is exact."""
        return ceiling(self.budget, g.double(), self.limits())

    def project(self, point: Tensor) -> Tensor:
        """Return the nearest point of the set in the Euclidean norm."""
        if self.budget.separable:
            lower, upper = self.bounds
            return torch.clamp(point, lower, upper)
        return self._point(self._ball.project(point.double() - self.x.double(), self.limits()))

    def moved(self, delta: Tensor) -> Tensor:
        """Return x + δ cut by the box, for float64 δ that lie in the budget: less work than a projection."""
        return self._point(delta if self.budget.separable else delta * _INWARD)

    def ascend(self, point: Tensor, g: Tensor, size: Tensor | float) -> Tensor:
        """Return the projection of point + size · (a step of gauge 1 along g); `size` may be one per example [N]."""
        if not self.budget.separable and isinstance(self._ball, Discrete):
            return self._point(self._ball.advance(self._delta(point), g.double(), size, self.limits()))
        move = self.stride(point, g)
        scale = expand(size.to(move.dtype), move) if isinstance(size, Tensor) else size
        move.mul_(scale).add_(point)
        return move.clamp_(*self.bounds) if self.budget.separable else self.project(move)

    def stride(self, point: Tensor, g: Tensor) -> Tensor:
        """Return the budget's step of gauge 1 along g, knowing what room the box leaves at `point`."""
        if self.budget.separable:
            return self.budget.ascend(g)
        lower, upper = self.box.bounds(self.x)
        return self.budget.ascend(g, (lower - point.double(), upper - point.double()))

    def swaps(self, point: Tensor, g: Tensor, first: Tensor, count: int) -> Tensor:
        """Return [N, count, *features]: `point` with one feature changed, those with the largest gain ⟨g, ·⟩ first.

        A feature is what the budget says it is (`Discrete.swaps`); otherwise a coordinate, which goes to the end of
        its interval before all of it is projected. `first` [N] of them are passed over.
        """
        here, wide = (
            self._delta(point),
            self.rows(torch.arange(len(point), device=point.device).repeat_interleave(count)),
        )
        if isinstance(self._ball, Discrete):
            moved = self._ball.swaps(here, g.double(), first, count, self.limits())
            return wide._point(moved.flatten(0, 1)).reshape(moved.shape)
        reach = coordinatewise.cut(self.budget.hull(self.x), self.limits())
        moved = coordinatewise.swaps(reach, here, g.double(), first, count)
        return wide._point(wide._ball.project(moved.flatten(0, 1), wide.limits())).reshape(moved.shape)

    def sample(self, stream: Stream, step: int) -> Tensor:
        """Return one point per example, uniform over the set (for cut balls: see `budgets/sampling.py`)."""
        if self.budget.separable:
            lower, upper = self.bounds
            drawn = self._blockwise(lambda part, keys: part._drawn(Stream(keys), step, part.limits()), stream.keys)
            return torch.clamp(drawn, lower, upper)
        return self._point(self._ball.sample(self.x, stream, step, self.limits()))

    def sample_clipped(self, stream: Stream, step: int) -> Tensor:
        """Return a uniform point of the budget alone, projected into the set: more mass lies on the box's faces.

        Where the budget bounds no value, as a count does, the box does.
        """
        drawn = self._blockwise(lambda part, keys: part._drawn(Stream(keys), step, part.bounding(part.x)), stream.keys)
        return self.project(drawn)

    def noise(self, stream: Stream, step: int) -> Tensor:
        """Return `sample_clipped` up to the rounding of each sum, at a fraction of its cost.

        For starts that are projected later: the box holds exactly, the budget may be exceeded by one such rounding.
        """
        if not self.budget.separable:
            return self.sample_clipped(stream, step)

        def drawn(part: Region, keys: Tensor) -> Tensor:
            return part.budget.sample(part.x, Stream(keys), step).to(part.x.dtype).add_(part.x)

        return _clamped(self._blockwise(drawn, stream.keys), *self._walls)

    def push(self, point: Tensor, g: Tensor, size: float, *, reach: float) -> Tensor:
        """Return point + size · (a step of gauge 1 along g), kept in `reach` budgets and the box.

        It is `scaled(reach).ascend` up to the rounding of each sum, at a fraction of its cost; the box holds exactly.
        """
        if not self.budget.separable:
            return self.scaled(reach).ascend(point, g, size / reach)
        low, high = (side.to(point.dtype) for side in self.budget.scaled(reach).hull(self.x))
        moved = self.stride(point, g).mul_(size).add_(point).clamp_(self.x + low, self.x + high)
        return _clamped(moved, *self._walls)

    def corner(self, stream: Stream, step: int) -> Tensor:
        """Return the extreme point of a random direction with independent normal coordinates."""
        shape = tuple(self.x.shape[1:])
        if not self.budget.separable:
            return self.extreme(stream.normal(step, shape).to(self.x.dtype))
        # Signs alone decide in a product of intervals, and those of normal numbers are fair coins.
        return self._blockwise(lambda part, keys: part.extreme(Stream(keys).signs(step, shape)), stream.keys)

    def gauge(self, point: Tensor) -> Tensor:
        """Return the size of p − x in units of the budget, float64 [N]."""
        if self.budget.monotone:
            return self._measured(point, lambda budget, delta: budget.gauge(delta))
        return rounding.gauge_within(self.budget, point.double() - self.x.double(), ulp(self.x, point))

    def norm(self, point: Tensor) -> Tensor:
        """Return the size of p − x in data units, float64 [N]."""
        return self._measured(point, lambda budget, delta: budget.norm(delta))

    def contains(self, point: Tensor) -> Tensor:
        """Return bool [N]: whether the point is feasible, decided in float64 without tolerance."""
        return (self.gauge(point) <= 1) & self.box.contains(point)

    def _corner(self, g: Tensor) -> Tensor:
        """Answer `extreme` for one gradient without building the bounds of the side it does not point to."""
        low, high = self.budget.hull(self.x)
        # From 0 by more than any limit, and back to the limit: `where` is many times slower than both.
        return self._point(_clamped(g.sign().double().mul_(torch.finfo(torch.float64).max), low, high))

    def _bound(self, side: int) -> Tensor:
        bound = self.budget.hull(self.x)[side]
        if not self.budget.separable:
            # A count of values bounds none of them: the box does, and where that is open, half of all numbers.
            most = torch.finfo(self.x.dtype).max / 2
            low, high = self.limits()
            bound = bound.maximum(low).minimum(high).clamp(-most, most)
        return _clamped(towards(self.x, bound), *self._walls)

    def _drawn(self, stream: Stream, step: int, limits: Limits | None) -> Tensor:
        """Return x + a draw from the budget in the precision of x, rounded to the nearest: it may lie outside."""
        return (self.x.double() + self._ball.sample(self.x, stream, step, limits)).to(self.x.dtype)

    def _measured(self, point: Tensor, size: Callable[[Budget, Tensor], Tensor]) -> Tensor:
        def of(part: Region, its_point: Tensor) -> Tensor:
            return size(part.budget, its_point.double() - part.x.double())

        return self._blockwise(of, point)

    def _delta(self, point: Tensor) -> Tensor:
        return point.double() - self.x.double()

    def _point(self, delta: Tensor) -> Tensor:
        point = _clamped(rounding.settled(self._ball, self.x, delta), *self._walls)
        if self.budget.monotone:
            return point
        # The last word has the gauge itself; x is inside every budget.
        return torch.where(expand(self.gauge(point) <= 1, point), point, self.x)

    def _blockwise(self, ask: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """Return ask(region, *given), put together from blocks of rows where coordinates do not know each other."""
        blocks = math.ceil(self.x.numel() / (_BLOCK * torch.get_num_threads()))
        if blocks < 2 or self.x.device.type != "cpu" or not self.budget.separable:
            return ask(self, *given)
        count = self.x.shape[0]
        size = math.ceil(count / blocks)
        parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
        return torch.cat([ask(self._block(rows), *(tensor[rows] for tensor in given)) for rows in parts])

    def _block(self, rows: slice) -> Self:
        part = self._with(self.budget.rows(torch.arange(rows.start, rows.stop)), self.x[rows])
        part._bounds = None if self._bounds is None else (self._bounds[0][rows], self._bounds[1][rows])
        return part


def _clamped(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Clamp in place; on a processor single numbers as numbers, several times faster than as tensors of one entry."""
    if lower.numel() == upper.numel() == 1 and values.device.type == "cpu":
        return values.clamp_(lower.item(), upper.item())
    return values.clamp_(lower, upper)
