"""What attacks share that trade the size of a perturbation against a hinge on the margin: size + c · max(κ − v, 0).

v is the negative margin. The constant c is searched for, per example; see `next_constant`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.attacks.contract import Problem, State
from steepest.attacks.smallest import margin_of
from steepest.models.contract import Evaluation


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
