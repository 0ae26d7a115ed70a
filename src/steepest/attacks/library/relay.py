"""Random squares and gradient steps in turn: squares leave the plateau, the steps climb from where they have got to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.checks import whole
from steepest.attacks.contract import GRADIENT, VALUE, Ask, Problem, State
from steepest.attacks.library.square import RandomSquares, striped
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.contract import Evaluation

_FIRST = 0.5
"""The first step of a climb, in budgets; a whole one would leave the point that the squares have found."""


@final
@dataclass(frozen=True, slots=True)
class Relay:
    """One chain of random squares per example, and after every `queries` of them a climb from the chain's best point.

    A climb asks `climb` questions: about the chain's best point, and after each of climb − 1 steps along the gradient,
    of ¼(1 + cos(π·i/climb)) budgets. It does not move the chain: a climbed point lies on the next plateau as a rule,
    and squares start worse from there.

    Args:
        rounds: how many chains' pieces and climbs.
        squares: the chain.
    """

    rounds: int
    queries: int
    climb: int
    squares: RandomSquares

    @property
    def steps(self) -> int:
        """See `Search.steps`."""
        return self.rounds * (self.queries + self.climb)

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the chain's state."""
        return self.squares.init(problem, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`: the gradient before each step, the value elsewhere."""
        at = number % (self.queries + self.climb)
        return GRADIENT if self.queries <= at < self.queries + self.climb - 1 else VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        finished, at = divmod(number, self.queries + self.climb)
        if at < self.queries:
            point, state = self.squares.step(problem, found, state, finished * self.queries + at)
            return (state["point"] if at == self.queries - 1 else point), state
        taken = at - self.queries
        if taken == self.climb - 1:
            return self.squares.proposed(problem, state, (finished + 1) * self.queries - 1), state
        assert found.gradient is not None
        size = _FIRST * (1 + math.cos(math.pi * taken / self.climb)) / 2
        return problem.region.ascend(found.point, found.gradient, size), state


@recipe(
    "relay",
    needs="gradient",
    cost="rounds × ((queries + climb) × F + (climb − 1) × B) + F",
    source="squares: Andriushchenko et al. 2020; in turn with gradients: ours",
    budgets=("linf", "weighted", "l2", "l1"),
)
def relay(rounds: int = 12, queries: int = 60, climb: int = 12) -> Recipe:
    """Random squares and gradient steps in turn, where neither alone gets far: for models whose gradient is masked.

    A saturated model gives no gradient at x and at random points. A few random squares leave the plateau, after which
    gradients lead on; the squares go on from their own best point, and every `queries` of them a new climb begins.
    On models with honest gradients it finds nothing that they do not, and is then a cheap witness of that.
    """
    whole("relay", "rounds", rounds, 1)
    whole("relay", "queries", queries, 1)
    whole("relay", "climb", climb, 2)
    squares = RandomSquares(rounds * queries, 0.8, rescale=True)
    return Recipe(search=Relay(rounds, queries, climb, squares), start=striped)
