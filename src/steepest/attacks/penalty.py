"""What attacks share that trade the size of a perturbation against a hinge on the margin: size + c · max(κ − v, 0).

v is the negative margin. The constant c is searched for, per example; see `next_constant`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from steepest.attacks.contract import Problem, State
from steepest.basis.errors import UsageError
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Objective
from steepest.models.objectives import DLR, CrossEntropy, Margin, ScaledCrossEntropy, Targeted


def margin_of(objective: Objective) -> Objective:
    """Return the margin that stands for a classifier's objective, towards the same target; any other as it is.

    >>> margin_of(ScaledCrossEntropy())
    Margin()
    """
    if isinstance(objective, Targeted):
        return replace(objective, base=Margin())
    return Margin() if isinstance(objective, CrossEntropy | ScaledCrossEntropy | DLR) else objective


def reached(problem: Problem, found: Evaluation, confidence: float = 0.0) -> Tensor:
    """Return bool [N]: the hinge is closed: the goal holds and, with κ > 0, the margin is at least κ beyond it."""
    if not confidence:
        return found.won
    return found.won & (margin_of(problem.objective).value(found.outputs, problem.y) >= confidence)


def constants(like: Tensor, first: float) -> State:
    """Return the state of the search for c: "c", what is known of it ("lower", "upper"), whether c sufficed."""
    c = like.new_full(like.shape[:1], first)
    return {"c": c, "lower": torch.zeros_like(c), "upper": torch.full_like(c, math.inf), "sufficed": c < 0}


def next_constant(state: State, sufficed: Tensor) -> State:
    """Return the state after one search: halve the bracket of c, or take ten times c while no c has sufficed.

    Source: Carlini & Wagner 2017.
    """
    lower = torch.where(sufficed, state["lower"], state["c"])
    upper = torch.where(sufficed, state["c"], state["upper"])
    c = torch.where(upper.isinf(), 10 * state["c"], (lower + upper) / 2)
    return {"c": c, "lower": lower, "upper": upper, "sufficed": torch.zeros_like(sufficed)}


def working(like: Tensor) -> torch.dtype:
    """Return the precision that a search computes in: that of x, at least float32."""
    return torch.promote_types(like.dtype, torch.float32)


def side_of(region: Region) -> Tensor:
    """Return the box's widest finite side, a number: published constants are for inputs in [0, 1]; 1 if there is none.

    >>> from steepest.basis.box import Box
    >>> from steepest.budgets.l2 import L2
    >>> side_of(Region(L2(1.0), Box(0, 255), torch.zeros(1, 3)))
    tensor(255.)
    """
    lower, upper = region.box.bounds(region.x)
    side = (upper - lower).nan_to_num(posinf=0.0)
    widest = side.amax() if side.numel() else side.sum()
    return torch.where(widest > 0, widest, 1.0).to(working(region.x))


def require_counts(attack: str, given: dict[str, int]) -> None:
    """Refuse numbers of steps or searches that are no whole numbers of at least 1.

    Raises:
        UsageError: names the parameter.
    """
    for name, value in given.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{attack}: {name}={value!r} is not allowed; give a whole number of at least 1.")


def require_positive(attack: str, given: dict[str, float]) -> None:
    """Refuse numbers that are not positive and finite.

    Raises:
        UsageError: names the parameter.
    """
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{attack}: {name}={value!r} is not allowed; give a positive finite number.")


def require_not_negative(attack: str, given: dict[str, float]) -> None:
    """Refuse numbers that are negative or not finite.

    Raises:
        UsageError: names the parameter.
    """
    for name, value in given.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"{attack}: {name}={value!r} is not allowed; give a finite number of at least 0.")
