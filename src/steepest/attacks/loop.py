"""The loop: the only code that asks the model on behalf of a search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from steepest.attacks.best import Best
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, Search
from steepest.basis.errors import ContractError
from steepest.basis.streams import Stream
from steepest.models.contract import Evaluation

_WIDTH = 512
"""So many points are asked about at once where there are several per example and few examples."""


def run_search(problem: Problem, search: Search, start: Tensor) -> Best:
    """Let `search` ask `search.steps` questions and judge its last point too; return the best points.

    Examples whose goal is reached leave the batch at once if the problem says so; where the smallest success is
    wanted they leave when nothing smaller can exist, or at a success of a search that says `ends_at_success`.
    """
    total = best = Best.none_yet(problem.region.x)
    live = torch.arange(start.shape[0], device=start.device)
    if not live.numel():
        return total
    point, state = start, search.init(problem, start)
    for number in range(search.steps + 1):
        last = number == search.steps
        found = answered(problem, point, VALUE if last else search.ask(problem, state, number), number, best)
        if last:
            break
        done = _done(problem, search, found, best)
        if done is not None:
            total.take(live[done], best.rows(done))
            stay = (~done).nonzero().squeeze(1)
            if not stay.numel():
                return total
            problem, found, live, best = problem.rows(stay), found.rows(stay), live[stay], best.rows(stay)
            state = {name: remembered[stay] for name, remembered in state.items()}
        point, state = search.step(problem, found, state, number)
    total.take(live, best)
    return total


def _done(problem: Problem, search: Search, found: Evaluation, best: Best) -> Tensor | None:
    """Return who leaves, bool [N], after an answer to all that are left; None if nobody does."""
    if found.none_won():  # who was done before has left
        return None
    done = settled(problem, best)
    if getattr(search, "ends_at_success", False):
        done = done | found.won
    return done if bool(done.any()) else None


def settled(problem: Problem, best: Best) -> Tensor:
    """Return bool [N]: nothing better is wanted: a success, or where the smallest one is wanted, one of size 0."""
    if problem.prefer is Prefer.SMALLEST_GAUGE:
        return best.won & (best.gauge == 0)
    return best.won if problem.drop_solved else torch.zeros_like(best.won)


def judged(problem: Problem, point: Tensor, best: Best) -> Evaluation:
    """Ask for the verdict on one point of each example, outside any search, and let `best` learn."""
    found = problem.model.evaluate(point, problem.y, problem.objective, problem.goal)
    best.spend(found)
    best.learn(problem, found)
    return found


def answered(problem: Problem, point: Tensor, ask: Ask, number: int, best: Best) -> Evaluation:
    """Ask the model about one point of each example, or several ([N, Q, *features]), and let `best` learn."""
    if point.ndim == problem.region.x.ndim:
        found = problem.model.answer(problem.question(point, ask, number))
        best.spend(found)
        if ask.judged != 0:
            best.learn(problem, found)
        return found
    count = point.shape[1]
    ranked = count if ask.judged is None else ask.judged
    parts = []
    for columns in _columns(point):
        parts.append(_asked_about(problem, point[:, columns], ask, number, columns))
        best.spend(parts[-1], columns.stop - columns.start)
        for column in range(columns.start, min(columns.stop, ranked)):
            best.learn(problem, parts[-1].each(lambda held, at=column - columns.start: held[:, at]))  # type: ignore[misc]
    return _side_by_side(parts)


def _columns(point: Tensor) -> Iterator[slice]:
    width = max(1, _WIDTH // point.shape[0])
    for first in range(0, point.shape[1], width):
        yield slice(first, min(first + width, point.shape[1]))


def _asked_about(problem: Problem, point: Tensor, ask: Ask, number: int, columns: slice) -> Evaluation:
    """Ask about [N, Q, *features] as one batch of N·Q; every tensor of the answer is [N, Q, ...]."""
    count, many = point.shape[:2]
    rows = torch.arange(count, device=point.device).repeat_interleave(many)
    posed = replace(problem.question(point.flatten(0, 1), ask, number), stream=None, region=None)
    drawn: dict[str, Any] = {}
    if problem.model.oracles:
        # Numbers of its own for each column: how many are asked about at once depends on batchmates.
        keys = [problem.stream.split(column + 1).keys for column in range(columns.start, columns.stop)]
        drawn = {"stream": Stream(torch.stack(keys, 1).flatten()), "region": problem.region.rows(rows)}
    found = problem.model.answer(
        replace(
            posed,
            y=None if problem.y is None else problem.y[rows],
            objective=problem.objective.rows(rows),
            goal=problem.goal.rows(rows),
            ascent=None if ask.ascent is None else ask.ascent.rows(rows),
            classes=None if ask.classes is None else ask.classes[rows],
            **drawn,
        )
    )
    return found.each(lambda tensor: tensor.reshape(count, many, *tensor.shape[1:]))


def _side_by_side(parts: list[Evaluation]) -> Evaluation:
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for field in fields(Evaluation):
        held = [getattr(part, field.name) for part in parts]
        if isinstance(held[0], Tensor):
            joined[field.name] = torch.cat(held, 1)
    return replace(parts[0], **joined)


def require_feasible(problem: Problem, point: Tensor, component: str) -> Tensor:
    """Return the gauge of every point, float64 [N]; all are feasible exactly.

    Raises:
        ContractError: names the search and the rows that left the region.
    """
    gauge = problem.region.gauge(point)
    feasible = (gauge <= 1) & problem.region.box.contains(point)
    if not bool(feasible.all()):
        broken = (~feasible).nonzero().squeeze(1).tolist()
        raise ContractError(
            f"{component} returned infeasible points for rows {broken[:10]}{' …' if len(broken) > 10 else ''}: every "
            "point must pass `region.contains`. Let the search end in `region.project`."
        )
    return gauge
