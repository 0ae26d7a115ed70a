"""Where searches start."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from steepest.attacks.contract import Problem

Start = Callable[[Problem, int], Tensor]
"""(problem, number of the run) → the first point, inside the region."""


def at_x(problem: Problem, restart: int) -> Tensor:
    """Start at the clean input."""
    return problem.region.x


def uniform(problem: Problem, restart: int) -> Tensor:
    """Start at a uniform point of the region."""
    return problem.region.sample(problem.stream, 0)


def clipped(problem: Problem, restart: int) -> Tensor:
    """Start at a uniform point of the budget, clipped into the box, as published evaluations do."""
    return problem.region.sample_clipped(problem.stream, 0)


def corner(problem: Problem, restart: int) -> Tensor:
    """Start at the extreme point of a random direction."""
    return problem.region.corner(problem.stream, 0)


def worst(problem: Problem, restart: int) -> Tensor:
    """Start at the worst point that is known, the clean input if there is none."""
    return problem.region.x if problem.worst is None else problem.worst


STARTS: dict[str, Start] = {"uniform": uniform, "clipped": clipped, "corner": corner, "worst": worst}
"""Starts by name; all but "worst" are random."""
