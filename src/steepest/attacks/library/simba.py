"""SimBA: one coordinate at a time, up or down, whichever raises the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import positive, whole
from steepest.attacks.contract import VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.tensors import expand, flat
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class CoordinateTrials:
    """Try a step up along a coordinate of the best point, then a step down; keep the first that raises the value.

    Coordinates come in an order drawn for each example, those that cannot move left out; after the last the order
    begins again.

    Args:
        steps: how many points are asked about before the last; the first is where the search starts.
        size: of a step, as a share of the budget; None for 1 in a product of intervals, 0.2 in a ball.
    """

    steps: int
    size: float | None = None

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the best point, its value, the order, and the trial that the next answer speaks of."""
        count = point.shape[0]
        movable = flat(problem.region.movable().expand(point.shape))
        keys = problem.stream.uniform(0, (movable.shape[1],))
        none = torch.zeros(count, dtype=torch.int64, device=point.device)
        return {
            "point": point,
            "value": torch.full_like(none, -torch.inf, dtype=torch.float64),
            "order": torch.where(movable, keys, torch.inf).argsort(1),
            "length": movable.sum(1).clamp_min(1),
            "place": none,
            "down": none.bool(),
        }

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        value, point = found.value.double(), found.point
        better = value > state["value"]
        best = torch.where(expand(better, point), point, state["point"])
        # The first answer is about the start itself, which is no trial.
        down = state["down"] if number == 0 else ~state["down"] & ~better
        place = state["place"] if number == 0 else state["place"] + (better | state["down"])
        at = state["order"].gather(1, (place % state["length"])[:, None])
        sign = torch.where(down, -1.0, 1.0).to(point.dtype)[:, None]
        direction = torch.zeros_like(flat(best)).scatter_(1, at, sign).reshape(best.shape)
        size = (1.0 if problem.region.budget.separable else 0.2) if self.size is None else self.size
        state = state | {
            "point": best,
            "value": torch.where(better, value, state["value"]),
            "place": place,
            "down": down,
        }
        return problem.region.ascend(best, direction, size), state


@recipe("simba", needs="scores", cost="restarts × (queries + 1) F", source="Guo et al. 2019")
def simba(queries: int = 1000, step: float | None = None, restarts: int = 1) -> Recipe:
    """Trial steps up and down along single coordinates in random order, each kept if the value rises.

    `step` is a share of the budget, and each trial is projected into it: in a product of intervals it is 1 if left
    out, so that a coordinate goes to its end at once; in a ball 0.2, the published number, there in data units and
    without a budget. Published for the probability of y; here the objective's value decides.
    """
    whole("simba", "queries", queries, 0)
    if step is not None:
        positive("simba", "step", step, "give a positive share of the budget, or leave it out")
    return Recipe(search=CoordinateTrials(queries, step), restarts=restarts)
