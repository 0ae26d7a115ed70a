"""What searches share that learn from nothing but decisions: a first success anywhere, and bisection towards x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.contract import Problem, State
from steepest.basis.tensors import expand
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation

SPLITS = 3
"""So many points of the way to x are asked about at once: each such question is worth two bits."""

DRAWS = 25
"""So many uniform points are asked about at once."""

_SCALES = 20
"""Where the box is open on a side, draws reach 1, 2, 4, … times the budget there, so many sizes in turn."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One question of a schedule: its kind, how many points of each example it asks about, in which iteration.

    Attributes:
        total: of all questions of this kind in the iteration, how many points they have.
    """

    kind: str
    points: int = 1
    iteration: int = 0
    total: int = 0


def approach(starts: int, bisections: int) -> list[Turn]:
    """Return the questions that every such search begins with: x, `starts` uniform points, and the way to x."""
    chunks = [min(DRAWS, starts - first) for first in range(0, starts, DRAWS)]
    return [Turn(kind="look"), *(Turn(kind="draw", points=count) for count in chunks), *bisection(bisections)]


def bisection(questions: int, iteration: int = 0) -> list[Turn]:
    """Return so many questions about the way to x."""
    return [Turn(kind="bisect", points=SPLITS, iteration=iteration)] * questions


def repeated(region: Region, count: int) -> Region:
    """Return the region of every example `count` times in a row, for [N, count, *features] flattened to [N·count]."""
    return region.rows(torch.arange(region.x.shape[0], device=region.x.device).repeat_interleave(count))


def box_draws(problem: Problem, step: int, count: int) -> Tensor:
    """Return points drawn uniformly from the box, [N, count, *features]; coordinates that cannot move stay.

    Where the box is open on a side the draws reach 2ʲ budgets there, j = 0 … 19 in turn: no scale is known.
    """
    region = problem.region
    low, high = (side.expand(region.x.shape) for side in region.limits())
    loose, own = region.loose().budget.hull(region.x), region.budget.hull(region.x)
    scale = 2.0 ** (torch.arange(count, device=region.x.device) % _SCALES).double()
    scale = scale.reshape(count, *[1] * (region.x.ndim - 1))

    def side(limit: Tensor, hull: Tensor, unit: Tensor, nearer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        wide = nearer(limit, hull.expand_as(limit))[:, None]
        return torch.where(limit.isinf()[:, None], unit.expand_as(limit)[:, None] * scale, wide)

    low = side(low, loose[0], own[0], torch.maximum)
    high = side(high, loose[1], own[1], torch.minimum)
    share = problem.stream.uniform(step, (count, *region.x.shape[1:]))
    return held(region, region.x.double()[:, None] + low + (high - low) * share)


def held(region: Region, points: Tensor) -> Tensor:
    """Return points [N, Q, *features] clamped to the box, in the precision of x; frozen coordinates stay."""
    lower, upper = region.loose().bounds
    return torch.clamp(points.to(region.x.dtype), lower[:, None], upper[:, None])


def first_state(problem: Problem) -> State:
    """Return the state of a row that knows no success: `point` is x."""
    x = problem.region.x
    nothing = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    return {"point": x, "known": nothing.bool(), "low": nothing}


def met(problem: Problem, found: Evaluation, state: State) -> State:
    """Return the state in which a row that knew no success has the nearest of those that `found` holds, if any."""
    count = found.won.shape[1]
    region = repeated(problem.region, count)
    size = region.gauge(found.point.flatten(0, 1)).reshape(-1, count)
    size = torch.where(found.won, size, torch.inf)
    fresh = found.won.any(1) & ~state["known"]
    point = picked(found.point, size.argmin(1))
    return state | {
        "point": torch.where(expand(fresh, point), point, state["point"]),
        "known": state["known"] | fresh,
        "low": state["low"].masked_fill(fresh, 0.0),
    }


def picked(points: Tensor, which: Tensor) -> Tensor:
    """Return of points [N, Q, *features] the one numbered `which` [N] of every example."""
    return points[torch.arange(len(which), device=points.device), which]


def radii(problem: Problem, state: State) -> Tensor:
    """Return the gauges that a bisecting question asks about, rising, [N, SPLITS]."""
    low, high = state["low"][:, None], problem.region.gauge(state["point"])[:, None]
    return low + (high - low) * torch.arange(1, SPLITS + 1, device=low.device) / (SPLITS + 1)


def on_the_way(problem: Problem, state: State) -> Tensor:
    """Return the nearest points to `point` in smaller budgets around x, [N, SPLITS, *features].

    In a Euclidean ball they lie on the segment to x, in L∞ they are the point clipped to smaller boxes.
    """
    point = state["point"]
    region = repeated(problem.region, SPLITS)
    smaller = region.scaled(radii(problem, state).flatten())
    return smaller.project(point.repeat_interleave(SPLITS, 0)).reshape(-1, SPLITS, *point.shape[1:])


def narrowed(problem: Problem, found: Evaluation, state: State) -> State:
    """Return the state after a question `on_the_way`: the smallest success, and the failure just below it."""
    sizes, won = radii(problem, state), found.won & state["known"][:, None]
    any_won, first = won.any(1), won.double().argmax(1)
    point = picked(found.point, first)
    below = torch.cat([state["low"][:, None], sizes], 1)
    index = torch.where(any_won, first, SPLITS)
    return state | {
        "point": torch.where(expand(any_won, point), point, state["point"]),
        "low": below.gather(1, index[:, None]).squeeze(1),
    }
