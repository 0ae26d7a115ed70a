"""The Boundary attack: a random walk along the decision boundary that comes nearer to x."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor

from steepest.attacks import decisions
from steepest.attacks.checks import share, whole
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, State
from steepest.attacks.decisions import Turn
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.tensors import expand, flat, inner
from steepest.models.contract import Evaluation

_BISECTIONS = 6
"""Questions of two bits on the way from the first success to x."""

_SIDEWAYS, _TOWARDS = 0.5, 0.25
"""How often a step along the sphere, and one that then goes towards x, should succeed."""

_RATE = 0.1
"""How much one decision changes the logarithm of a size."""


@final
@dataclass(frozen=True, slots=True)
class BoundaryWalk:
    """From a success p: a random step along the sphere around x through p, and from there a step towards x.

    Both points are asked about. p moves to the second where that is wrong. The sizes of the steps, as shares of
    ‖p − x‖₂, follow the decisions of their row so that half of the first and a quarter of the second succeed.

    A row that knows no success asks about uniform points of the box instead, and finds none or begins.

    Args:
        queries: at most so many points per example are asked about.
        starts: uniform points of the box among which a first success is looked for.
        sideways, towards: the first sizes.
    """

    queries: int
    starts: int
    sideways: float
    towards: float

    @property
    def steps(self) -> int:
        """See `Search.steps`."""
        return len(_schedule(self)) - 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`."""
        state = decisions.first_state(problem)
        sizes = {"sideways": self.sideways, "towards": self.towards}
        return state | {name: torch.full_like(state["low"], size) for name, size in sizes.items()}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        turn, following = _schedule(self)[number : number + 2]
        state = _learnt(problem, found, state, turn)
        if following.kind == "draw":
            return decisions.box_draws(problem, number, following.points), state
        walks = following.kind == "walk"
        way = _walked(problem, state, number) if walks else decisions.on_the_way(problem, state)
        known = state["known"]
        if not bool(known.all()):
            way = torch.where(expand(known, way), way, decisions.box_draws(problem, number, following.points))
        return way, state


@cache
def _schedule(search: BoundaryWalk) -> tuple[Turn, ...]:
    turns = decisions.approach(search.starts, _BISECTIONS)
    left = search.queries - sum(turn.points for turn in turns)
    return (*turns, *[Turn(kind="walk", points=2)] * (left // 2))


def _learnt(problem: Problem, found: Evaluation, state: State, turn: Turn) -> State:
    if turn.kind == "look":
        return state
    known = state["known"]
    if turn.kind == "bisect":
        state = decisions.narrowed(problem, found, state)
    elif turn.kind == "walk":
        state = _moved(found, state)
    return decisions.met(problem, found, state | {"known": known})


def _moved(found: Evaluation, state: State) -> State:
    known, (sideways, towards) = state["known"], found.won.double().unbind(1)
    accepted = known & found.won[:, 1]
    grown = {
        "sideways": state["sideways"] * torch.exp(_RATE * (sideways - _SIDEWAYS)),
        "towards": state["towards"] * torch.exp(_RATE * (towards - _TOWARDS)),
    }
    return state | {
        "point": torch.where(expand(accepted, state["point"]), found.point[:, 1], state["point"]),
        **{name: torch.where(known, size.clamp_max(1.0), state[name]) for name, size in grown.items()},
    }


def _walked(problem: Problem, state: State, number: int) -> Tensor:
    """Return a point on the sphere around x through p, and one from there nearer to x, [N, 2, *features]."""
    x = problem.region.x.double()
    way = state["point"].double() - x
    length = inner(way, way).sqrt()
    noise = problem.stream.normal(number, tuple(x.shape[1:])) * problem.region.movable()
    noise = noise - way * expand(inner(noise, way) / inner(way, way).masked_fill(length == 0, 1), way)
    sideways = way + noise * expand(state["sideways"] * length / _nonzero(flat(noise).norm(dim=1)), way)
    sideways = sideways * expand(length / _nonzero(flat(sideways).norm(dim=1)), way)
    # Cut first, then shrink: the second point lies on the segment from the first to x, inside the box.
    first = decisions.held(problem.region, (x + sideways)[:, None])
    second = x + (first[:, 0].double() - x) * expand(1 - state["towards"], x)
    return torch.cat([first, decisions.held(problem.region, second[:, None])], 1)


def _nonzero(length: Tensor) -> Tensor:
    return length.masked_fill(length == 0, 1)


@recipe("boundary", needs="labels", cost="queries × F at most", source="Brendel, Rauber & Bethge 2018", budgets=("l2",))
def boundary(queries: int = 25_000, starts: int = 100, sideways: float = 0.01, towards: float = 0.01) -> Recipe:
    """Walk at random along the decision boundary, every accepted step nearer to x.

    As published, but: both points of a step are asked about, always, and the sizes follow every decision instead
    of the success rate of the last hundred; the first success is brought near x by bisection.
    """
    least = 1 + max(0, starts) + decisions.SPLITS * _BISECTIONS
    for name, given, floor in (("starts", starts, 1), ("queries", queries, least)):
        whole("boundary", name, given, floor)
    for name, size in (("sideways", sideways), ("towards", towards)):
        share("boundary", name, size, "it is a share of the distance, e.g. 0.01")
    return Recipe(search=BoundaryWalk(queries, starts, sideways, towards), prefer=Prefer.SMALLEST_GAUGE)
