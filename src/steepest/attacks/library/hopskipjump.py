"""HopSkipJump: gradients at the decision boundary, estimated from decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor

from steepest.attacks import decisions
from steepest.attacks.checks import whole
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, State
from steepest.attacks.decisions import Turn
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.tensors import expand, flat, inner
from steepest.models.contract import Evaluation

_BISECTIONS = 10
"""Questions of two bits: 10⁻⁶ of the way to x, the published d^−3/2 for d = 10 000; uniform, so that rows agree."""

_SIZES = 8
"""Steps of 1, ½, … 1/128 of the published first one; all are asked about at once."""

_INFORMING = 100
"""So many points around the boundary are held at once."""

_MOST = 10_000
"""No iteration asks about more points around the boundary."""


@final
@dataclass(frozen=True, slots=True)
class HopSkipJump:
    """From the nearest success known, in turns: estimate the boundary's normal, step along it, go back towards x.

    With u₁ … u_B uniform directions of the length ‖p − x‖₂/d and φ = ±1 whether p + u is wrong, the normal is
    Σ (φ − mean φ)·u, or Σ φ·u where all φ agree; B = points·√t in iteration t. The step has the size of p over √t,
    halved until it stays wrong, in the geometry of the budget; the way back is the nearest point in smaller budgets,
    bisected.

    A row that knows no success asks about uniform points of the box instead of steps, and finds none or begins.

    Args:
        queries: at most so many points per example are asked about; iterations that do not fit are left out.
        points: B of the first iteration.
        starts: uniform points of the box among which a first success is looked for.
    """

    queries: int
    points: int
    starts: int

    @property
    def steps(self) -> int:
        """See `Search.steps`."""
        return len(_schedule(self)) - 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`; `pull` is Σ φ·u, `drift` Σ u and `balance` Σ φ of the iteration."""
        wide = torch.zeros(point.shape, dtype=torch.float64, device=point.device)
        state = decisions.first_state(problem)
        return state | {"pull": wide, "drift": wide.clone(), "balance": torch.zeros_like(state["low"])}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return Ask(judged=0) if _schedule(self)[number].kind == "inform" else VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        turn, following = _schedule(self)[number : number + 2]
        state = _learnt(problem, found, state, turn)
        if following.kind == "draw":
            return decisions.box_draws(problem, number, following.points), state
        if following.kind == "inform":
            return _around(problem, state, number, following.points), state
        way = (
            decisions.on_the_way(problem, state) if following.kind == "bisect" else _strides(problem, state, following)
        )
        known = state["known"]
        if not bool(known.all()):
            way = torch.where(expand(known, way), way, decisions.box_draws(problem, number, following.points))
        return way, state


@cache
def _schedule(search: HopSkipJump) -> tuple[Turn, ...]:
    """Return every question; that of a smaller number of queries begins that of a larger one."""
    turns = decisions.approach(search.starts, _BISECTIONS)
    left = search.queries - sum(turn.points for turn in turns)
    for iteration in range(1, search.queries):
        turns_of_it = _iteration(iteration, search.points)
        left -= sum(turn.points for turn in turns_of_it)
        if left < 0:
            break
        turns += turns_of_it
    return tuple(turns)


def _iteration(number: int, points: int) -> list[Turn]:
    total = min(int(points * math.sqrt(number)), _MOST)
    chunks = [min(_INFORMING, total - first) for first in range(0, total, _INFORMING)]
    return [
        *(Turn(kind="inform", points=count, iteration=number, total=total) for count in chunks),
        Turn(kind="step", points=_SIZES, iteration=number, total=total),
        *decisions.bisection(_BISECTIONS, number),
    ]


def _learnt(problem: Problem, found: Evaluation, state: State, turn: Turn) -> State:
    if turn.kind == "look":
        return state
    if turn.kind == "inform":
        return _informed(found, state)
    known = state["known"]
    if turn.kind == "bisect":
        state = decisions.narrowed(problem, found, state)
    elif turn.kind == "step":
        state = _stepped(found, state)
    # `known` from before: who begins here has not been narrowed or stepped.
    return decisions.met(problem, found, state | {"known": known})


def _informed(found: Evaluation, state: State) -> State:
    moved = found.point.double() - state["point"].double()[:, None]
    sign = torch.where(found.won, 1.0, -1.0).double()
    return state | {
        "pull": state["pull"] + (moved * sign.reshape(*sign.shape, *[1] * (moved.ndim - 2))).sum(1),
        "drift": state["drift"] + moved.sum(1),
        "balance": state["balance"] + sign.sum(1),
    }


def _stepped(found: Evaluation, state: State) -> State:
    """Take the longest step that stayed wrong, if any, and forget what is known of the place that was left."""
    won = found.won & state["known"][:, None]
    moved = won.any(1)
    point = decisions.picked(found.point, won.double().argmax(1))
    return state | {
        "point": torch.where(expand(moved, point), point, state["point"]),
        "low": torch.zeros_like(state["low"]),
        "pull": torch.zeros_like(state["pull"]),
        "drift": torch.zeros_like(state["drift"]),
        "balance": torch.zeros_like(state["balance"]),
    }


def _around(problem: Problem, state: State, number: int, count: int) -> Tensor:
    """Return points at ‖p − x‖₂/d from p in uniform directions, inside the box."""
    x, point = problem.region.x, state["point"]
    noise = problem.stream.normal(number, (count, *x.shape[1:])) * problem.region.movable().expand(x.shape)[:, None]
    length = flat(noise.flatten(0, 1)).norm(dim=1).reshape(-1, count)
    distance = flat(point.double() - x.double()).norm(dim=1) / max(1, flat(x).shape[1])
    # Below some spacings of x's precision the directions would be those of its grid.
    coarse = 16 * torch.finfo(x.dtype).eps * inner(x, x).sqrt()
    size = torch.maximum(distance, coarse)[:, None] / length.masked_fill(length == 0, 1)
    return decisions.held(
        problem.region, point.double()[:, None] + noise * size.reshape(*size.shape, *[1] * (x.ndim - 1))
    )


def _strides(problem: Problem, state: State, turn: Turn) -> Tensor:
    """Return steps along the estimated normal, the longest first, inside the box."""
    region, point = problem.region, state["point"].double()
    mean = state["balance"] / turn.total
    # Where all agree, subtracting the mean would leave nothing: the published normal is then ± the mean direction.
    normal = state["pull"] - expand(torch.where(mean.abs() == 1, 0.0, mean), point) * state["drift"]
    lower, upper = region.box.bounds(region.x)
    move = region.budget.ascend(normal, (lower - point, upper - point))
    first = region.gauge(state["point"]) / math.sqrt(turn.iteration)
    sizes = first[:, None] * 0.5 ** torch.arange(turn.points, device=first.device)
    steps = move[:, None] * sizes.reshape(*sizes.shape, *[1] * (point.ndim - 1))
    return decisions.held(region, point[:, None] + steps)


@recipe(
    "hopskipjump",
    needs="labels",
    cost="queries × F at most",
    source="Chen, Jordan & Wainwright 2020",
    budgets=("linf", "l2", "l1", "weighted"),
)
def hopskipjump(queries: int = 25_000, points: int = 100, starts: int = 100) -> Recipe:
    """Estimate the decision boundary's normal from decisions around it, step along it, and go back towards x.

    Published for L2 and L∞; both are the budget's own geometry here, which serves L1 and weights too. Otherwise:
    the directions around the boundary have the length ‖p − x‖₂/d in every budget, the sizes of the step and the
    points of the way back are asked about several at once (the queries count them all), and the way back is always
    divided into 2²⁰ parts. 25 000 queries are about 50 iterations.
    """
    least = 1 + max(0, starts) + decisions.SPLITS * _BISECTIONS
    for name, given, floor in (("points", points, 1), ("starts", starts, 1), ("queries", queries, least)):
        note = " (one for x, those for a start, and the way back)" if name == "queries" else ""
        whole("hopskipjump", name, given, floor, note)
    return Recipe(search=HopSkipJump(queries, points, starts), prefer=Prefer.SMALLEST_GAUGE)
