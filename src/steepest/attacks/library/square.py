"""The Square attack: random search that repaints one square window of the input at a time."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.bumps import patterns, unit
from steepest.attacks.contract import VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.errors import UsageError
from steepest.basis.tensors import expand
from steepest.budgets.contract import Budget, is_sparse
from steepest.budgets.epsilon import per_example
from steepest.models.contract import Evaluation

_BREAKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_RANGE = 10_000
_START, _MOVE = 1, 2
_CANCELLED = 1e-9


def share_of(p: float, number: int, queries: int, *, rescale: bool = False) -> float:
    """Return the share of the area that proposal `number` (from 0) repaints: p, halved after 10, 50, 200, … proposals.

    >>> [share_of(0.8, n, 5000) for n in (0, 10, 11, 50, 51, 1001)]
    [0.8, 0.8, 0.4, 0.4, 0.2, 0.025]
    """
    at = number * _RANGE // max(queries, 1) if rescale else number
    return p / float(1 << bisect_left(_BREAKS, at))


def sides_of(height: int, width: int, area: float, least: int = 1) -> tuple[int, int]:
    """Return the sides of a window of about `area` pixels: a square, or where that is too long, a rectangle.

    >>> sides_of(32, 32, 819.2), sides_of(8, 128, 256), sides_of(1, 64, 16)
    ((29, 29), (8, 32), (1, 16))
    """
    side = max(round(math.sqrt(area)), least)
    high, wide = min(side, height), min(side, width)
    if high < side:
        wide = min(width, max(round(area / high), wide))
    elif wide < side:
        high = min(height, max(round(area / wide), high))
    return high, wide


def image_shape(x: Tensor) -> tuple[int, int, int]:
    """Return (channels, height, width) of an example read as an image; a vector is one row, a number one pixel."""
    *channels, height, width = (1, 1, *x.shape[1:])
    return math.prod(channels), height, width


@final
@dataclass(frozen=True, slots=True)
class RandomSquares:
    """Repaint a random window of the best point, and keep the new point if its value is larger.

    In a product of intervals a channel of the window goes to one end of its intervals as a whole. In a ball the
    window gets a pattern and what a second window, which is emptied, had of Σ|δᵢ|^q: q = 2, and 1 in sparse sets.

    Source: Andriushchenko et al. 2020 (arXiv 1912.00049); Croce & Hein 2021 (arXiv 2103.01208) for sparse sets (L1).

    Args:
        steps: how many windows.
        p: share of the area that the first windows repaint, in (0, 1].
        rescale: the schedule of p is written for 10 000 windows; True compresses it to `steps`.
    """

    steps: int
    p: float
    rescale: bool = False

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the best point and its value; in a ball also which coordinates can move."""
        value = torch.full(point.shape[:1], -torch.inf, dtype=torch.float64, device=point.device)
        state = {"point": point, "value": value}
        return state if problem.region.budget.separable else state | {"movable": _movable(problem)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        value = found.value.double()
        better = value > state["value"]
        # A blend by exactly 0 or 1 is exact, and faster than `where`.
        best = torch.lerp(state["point"], found.point, expand(better, found.point).to(found.point.dtype))
        state = state | {"point": best, "value": torch.where(better, value, state["value"])}
        return self.proposed(problem, state, number), state

    def proposed(self, problem: Problem, state: State, number: int) -> Tensor:
        """Return the best point with window `number` repainted."""
        best = state["point"]
        _, height, width = image_shape(best)
        area = share_of(self.p, number, self.steps, rescale=self.rescale) * height * width
        if problem.region.budget.separable:
            return _repainted(problem, best, area, number)
        return _refilled(problem, best, state["movable"], area, number)


def striped(problem: Problem, restart: int) -> Tensor:
    """Return where the search starts: vertical stripes at the intervals' ends, or in a ball 5×5 patterned tiles."""
    x, stream = problem.region.x, problem.stream.split(_START)
    channels, height, width = image_shape(x)
    if problem.region.budget.separable:
        signs = stream.signs(0, (channels, 1, width)).to(x.dtype)
        return problem.region.extreme(signs.expand(-1, channels, height, width).reshape(x.shape))
    sides, tiles = _tiling(height, width)
    draws = stream.uniform(0, (channels + 1, *tiles))
    signs = _signs(draws[:, :channels])[..., None, None]
    along, across = patterns(*sides, _order(problem.region.budget), x.device)
    painted = torch.where((draws[:, channels:] < 0.5)[..., None, None], along, across) * signs
    whole = (tiles[0] * sides[0], tiles[1] * sides[1])
    delta = draws.new_zeros(x.shape[0], channels, height, width)
    top, left = (height - whole[0]) // 2, (width - whole[1]) // 2
    inner = painted.transpose(3, 4).reshape(x.shape[0], channels, *whole)
    delta[:, :, top : top + whole[0], left : left + whole[1]] = inner
    # Published for the box [0, 1], where a tile of a sparse set has length 1; in a ball any factor gives the same.
    return _to_the_edge(problem, delta * problem.region.box.side(x), _movable(problem))


def _tiling(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    sides = max(height // 5, 1), max(width // 5, 1)
    return sides, (height // sides[0], width // sides[1])


def _repainted(problem: Problem, best: Tensor, area: float, number: int) -> Tensor:
    """Push one window per example to the ends of its intervals, each channel to one of the two."""
    channels, height, width = image_shape(best)
    high, wide = sides_of(height, width, area)
    draws = problem.stream.split(_MOVE).uniform(number, (2 + channels,))
    # Farther than any interval reaches; the projection brings it back to the end.
    far = torch.finfo(best.dtype).max
    push = _signs(draws[:, 2:]).to(best.dtype) * far
    rows = _covered(draws[:, 0], height, high)[:, None, :, None]
    columns = _covered(draws[:, 1], width, wide)[:, None, None, :].to(best.dtype)
    image = best.reshape(-1, channels, height, width)
    pushed = torch.addcmul(image, push[:, :, None, None] * rows, columns)
    return problem.region.project(pushed.reshape(best.shape))


def _signs(draws: Tensor) -> Tensor:
    """Return −1 and 1 with equal probability from uniform numbers, float64."""
    return (draws < 0.5).double() * 2 - 1


def _covered(draw: Tensor, length: int, side: int) -> Tensor:
    """Return bool [N, length]: the `side` places of a window at a random place."""
    offset = torch.arange(length, device=draw.device) - (draw * (length - side + 1)).long()[:, None]
    return (offset >= 0) & (offset < side)


def _refilled(problem: Problem, best: Tensor, movable: Tensor, area: float, number: int) -> Tensor:
    """Empty two windows per example and give the first a new pattern with the length of both, and what is unused.

    Σ|δᵢ|^q is what adds up. In a sparse set each channel gets as many times its share as there are channels, and the
    projection takes the surplus away, the smallest changes first.
    """
    budget, (channels, height, width) = problem.region.budget, image_shape(best)
    order, surplus = _order(budget), channels if is_sparse(budget) else 1
    high, wide = (min(side, size) for side, size in zip(_odd(height, width, area), (height, width), strict=True))
    draws = problem.stream.split(_MOVE).uniform(number, (5 + channels,))
    delta = (best.double() - problem.region.x.double()).reshape(-1, channels, height * width)
    first, second = (
        _places(draws[:, at : at + 2], (height, width), (high, wide))[:, None].expand(-1, channels, -1) for at in (0, 2)
    )
    epsilon = per_example(budget.epsilon, best, "square")[:, None]
    missing = (epsilon.pow(order) - delta.abs().pow(order).sum((1, 2))[:, None]).clamp_min(0)
    held = delta.gather(2, first)
    emptied = delta.scatter_(2, first, 0.0)
    freed = held.abs().pow(order).sum(2) + emptied.gather(2, second).abs().pow(order).sum(2)
    emptied.scatter_(2, second, 0.0)
    along, across = (pattern.reshape(1, 1, -1) for pattern in patterns(high, wide, order, best.device))
    signs = _signs(draws[:, 5:])[..., None]
    pattern = torch.where(draws[:, 4, None, None] < 0.5, along, across) * signs
    mixed = pattern + unit(held, order)
    # In a window of one or two pixels the two can cancel.
    lost = mixed.abs().amax(-1, keepdim=True) < _CANCELLED
    pattern = unit(torch.where(lost, pattern, mixed), order)
    length = surplus * (missing / channels + freed).pow(1 / order)[..., None]
    return _to_the_edge(problem, emptied.scatter_(2, first, pattern * length), movable)


def _odd(height: int, width: int, area: float) -> tuple[int, int]:
    high, wide = sides_of(height, width, area, least=3)
    return high + (high % 2 == 0), wide + (wide % 2 == 0)


def _places(draws: Tensor, size: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """Return int64 [N, sides]: where the pixels of a window at a random place are, counted row by row."""
    corner = [(draws[:, at] * (size[at] - sides[at] + 1)).long()[:, None] for at in (0, 1)]
    rows, columns = (corner[at] + torch.arange(sides[at], device=draws.device) for at in (0, 1))
    return (rows[:, :, None] * size[1] + columns[:, None, :]).flatten(1)


def _to_the_edge(problem: Problem, delta: Tensor, movable: Tensor) -> Tensor:
    """Return x + ε·δ/‖δ‖ of what can move, cut by the box; in a sparse set x + δ, at least that long, projected."""
    region = problem.region
    free = delta.reshape(region.x.shape) * movable
    length = region.budget.norm(free)
    scale = per_example(region.budget.epsilon, free, "square") / length.masked_fill(length == 0, 1)
    if is_sparse(region.budget):
        return region.project(free.mul_(expand(scale.clamp_min(1), free)).add_(region.x))
    return region.moved(free.mul_(expand(scale, free)))


def _order(budget: Budget) -> int:
    return 1 if is_sparse(budget) else 2


def _movable(problem: Problem) -> Tensor:
    return problem.region.movable().expand(problem.region.x.shape)


@recipe(
    "square",
    needs="scores",
    cost="restarts × (queries + 1) F",
    source="Andriushchenko et al. 2020; Croce & Hein 2021 for L1",
    budgets=("linf", "weighted", "l2", "l1"),
)
def square(queries: int = 5000, p: float = 0.8, restarts: int = 1, rescale: bool = False) -> Recipe:
    """Random search over windows whose share of the area is p at first and falls in nine steps, from stripes.

    The schedule is AutoAttack's and does not depend on `queries`; `rescale=True` compresses it to them, which finds
    more with a few hundred; with p = 0.05 that is the authors' script. Windows reach the last row and column too,
    and where one side is too short they grow along the other; vectors are images of one row. A point is kept where
    its value rises. In L1 every point is the exact projection onto ball and box, and a start whose published tiles add
    up to less than ε is lengthened.
    """
    if not isinstance(queries, int) or queries < 0:
        raise UsageError(f"square: queries={queries!r} is not allowed; give a whole number of at least 0.")
    if not 0 < p <= 1:
        raise UsageError(f"square: p={p!r} is not allowed; it is a share of the area, above 0 and up to 1.")
    return Recipe(search=RandomSquares(queries, p, rescale), start=striped, restarts=restarts)
