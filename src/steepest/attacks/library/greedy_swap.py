"""Greedy swaps: one feature after the other, each judged by the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import whole
from steepest.attacks.contract import GRADIENT, VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.tensors import expand
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class GreedySwaps:
    """Ask at the best point for the gradient, then about other points: the extreme one, a step, and single changes.

    The step is one of the share 1/(2 + round) of the budget; the changes are `swaps` points one feature away.
    The best of all takes the point's place if it is better. The changes are those with the largest first-order gain;
    where nothing was better, the next ones in that order have their turn.

    Args:
        rounds: of one gradient and 2 + `swaps` values each.
        swaps: how many single changes are tried in a round.
    """

    rounds: int
    swaps: int

    @property
    def steps(self) -> int:
        """Two questions a round; the last points are judged by the loop."""
        return 2 * self.rounds - 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the point, its value, and how many swaps have been tried in vain."""
        return {
            "point": point,
            "value": torch.full(point.shape[:1], -torch.inf, dtype=torch.float64, device=point.device),
            "tried": torch.zeros(point.shape[0], dtype=torch.int64, device=point.device),
        }

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`: a gradient and values in turn."""
        return VALUE if number % 2 else GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        if number % 2 == 0:
            assert found.gradient is not None
            jump = problem.region.extreme(found.gradient)
            step = problem.region.ascend(found.point, found.gradient, 1 / (2 + number // 2))
            near = problem.region.swaps(found.point, found.gradient, state["tried"], self.swaps)
            value = found.value.double().nan_to_num(-torch.inf)
            return torch.cat([jump[:, None], step[:, None], near], 1), {**state, "point": found.point, "value": value}
        value, place = found.value.double().nan_to_num(-torch.inf).max(1)
        better = value > state["value"]
        row = torch.arange(len(value), device=value.device)
        point = torch.where(expand(better, state["point"]), found.point[row, place], state["point"])
        tried = torch.where(better, 0, state["tried"] + self.swaps)
        return point, {"point": point, "value": torch.maximum(value, state["value"]), "tried": tried}


@recipe(
    "greedy-swap",
    needs="gradient",
    cost="rounds × ((3 + swaps) × F + B)",
    source="after Ebrahimi et al. 2018 (HotFlip), greedy in place of beam search",
)
def greedy_swap(rounds: int = 10, swaps: int = 16) -> Recipe:
    """Single changes of features with the largest first-order gain, each judged by the model, the best one kept.

    For tables a change is a number at its limit or another category. Where so many have changed as may, the one
    that gains least is taken back. The extreme point is tried in every round, so it is never weaker than FGSM.
    """
    whole("greedy-swap", "rounds", rounds, 1)
    whole("greedy-swap", "swaps", swaps, 1)
    return Recipe(search=GreedySwaps(rounds, swaps))
