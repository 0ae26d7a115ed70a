"""RayS: the nearest decision boundary along a ray to a corner, found by flipping blocks of its signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import share, whole
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.tensors import expand, flat
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class SignBlocks:
    """Search the signs s for which the corner of the smallest budget is wrong, one question per row at a time.

    A row tries its signs with one block flipped. First the fast check: does that direction succeed at the radius
    of the best one so far? If so the radius is bisected, and the flip stays where it made the radius smaller. There
    are 1, 2, 4, … blocks, down to single coordinates, which are gone through until the questions are spent. As
    long as nothing succeeded the radius is that of the whole box.

    Each row is at its own place of this, so none waits for another. Coordinates that cannot move are in no block.

    Args:
        steps: how many questions; the first is about x.
        tolerance: a bisection ends at this share of the radius.
    """

    steps: int
    tolerance: float

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`; signs are `best` and `tried`, radii in budgets; `place` counts what can move, from 0."""
        ones = torch.ones_like(point)
        low = torch.zeros(point.shape[0], dtype=torch.float64, device=point.device)
        high = torch.full_like(low, torch.inf)
        zero = torch.zeros_like(low, dtype=torch.int64)
        movable = flat(problem.region.movable().expand(point.shape))
        place = (movable.long().cumsum(1) - 1).masked_fill(~movable, -1)
        return {
            "best": ones, "high": high, "tried": ones, "low": low, "upper": high.clone(), "stride": high.clone(),
            "searching": zero.bool(), "level": zero - 1, "block": zero.clone(),
            "place": place,
        }  # fmt: skip

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        if number:
            state = self._learnt(problem.region, found, state)
        return _corner(problem.region, state["tried"], _asked(state)), state

    def _learnt(self, region: Region, found: Evaluation, state: State) -> State:
        won, searching = found.won, state["searching"]
        asked = _asked(state)
        # A corner that the box cuts is nearer than the radius that it was asked at.
        upper = torch.where(won, torch.minimum(asked, region.gauge(found.point)), state["upper"])
        low = torch.where(searching & ~won, asked, state["low"])
        goes_on = (searching | won) & (upper - low > self.tolerance * upper)
        better = ~goes_on & (upper < state["high"]) & (searching | won)
        best = torch.where(expand(better, state["best"]), state["tried"], state["best"])
        high = torch.where(better, upper, state["high"])
        # The first bisection starts from nowhere; a later flip gains little more often than much.
        stride = torch.where(won & searching, 2 * state["stride"], state["stride"])
        stride = torch.where(searching, stride, self.tolerance * upper)
        stride = torch.where(~searching & state["high"].isinf(), upper, stride)
        level, block, tried = _next_block(best, state["place"], state["level"], state["block"])
        fresh = ~goes_on
        return state | {
            "best": best,
            "high": high,
            "tried": torch.where(expand(fresh, best), tried, state["tried"]),
            "low": low.masked_fill(fresh, 0.0),
            "upper": torch.where(fresh, high, upper),
            "stride": stride,
            "searching": goes_on,
            "level": torch.where(fresh, level, state["level"]),
            "block": torch.where(fresh, block, state["block"]),
        }


def _asked(state: State) -> Tensor:
    """Return the radius that each row asks about: that of the best signs, or one that narrows the search."""
    low, upper = state["low"], state["upper"]
    inner = torch.maximum((low + upper) / 2, upper - state["stride"])
    return torch.where(state["searching"], inner, state["high"])


def _corner(region: Region, signs: Tensor, radius: Tensor) -> Tensor:
    """Return the corner that the signs point to in `radius` budgets; ∞ is the whole box."""
    whole = radius.isinf()
    near = region.scaled(radius.masked_fill(whole, 0.0)).extreme(signs)
    return torch.where(expand(whole, near), region.loose().extreme(signs), near) if bool(whole.any()) else near


def _next_block(best: Tensor, place: Tensor, level: Tensor, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the next level and block of each row, and its best signs with that block flipped."""
    count = place.amax(1) + 1 if place.shape[1] else torch.zeros_like(level)
    size = _size(count, level)
    ended = (level < 0) | ((block + 1) * size >= count)
    level = torch.where(ended & (size > 1) | (level < 0), level + 1, level)
    block = torch.where(ended, 0, block + 1)
    first, size = (block * _size(count, level))[:, None], _size(count, level)[:, None]
    inside = (place >= first) & (place < first + size)
    return level, block, torch.where(inside.reshape(best.shape), -best, best)


def _size(count: Tensor, level: Tensor) -> Tensor:
    """Return ⌈count / 2^level⌉, at least 1: how many coordinates a block has."""
    blocks = 2 ** level.clamp(0, 60)
    return ((count + blocks - 1) // blocks).clamp_min(1)


@recipe("rays", needs="labels", cost="queries × F", source="Chen & Gu 2020", budgets=("linf", "weighted"))
def rays(queries: int = 1000, tolerance: float = 1e-4) -> Recipe:
    """Flip blocks of the signs of a corner, and bisect the radius where the decision says that it shrinks.

    It learns from decisions alone and asks exactly `queries` questions per example (published: 10 000). As
    published, but for the bisection, which ends at the share `tolerance` of the radius (published: at 10⁻³ of
    Euclidean length, which is 6·10⁻⁴ of 8/255 on 3×32×32 pixels) and begins at the known radius in doubling
    strides, because most flips gain little.
    """
    whole("rays", "queries", queries, 1)
    share("rays", "tolerance", tolerance, "it is a share of the radius, e.g. 1e-4")
    return Recipe(search=SignBlocks(queries - 1, tolerance), prefer=Prefer.SMALLEST_GAUGE)
