"""Random squares and gradient steps in turn: the squares leave the plateau, the steps climb from where they got to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.checks import positive, whole
from steepest.attacks.contract import Ask, Problem, State
from steepest.attacks.library.square import RandomSquares, striped
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import Margin


@final
@dataclass(frozen=True, slots=True)
class Relay:
    rounds: int
    queries: int
    climb: int
    size: float
    squares: RandomSquares

    @property
    def steps(self) -> int:
        return self.rounds * (self.queries + self.climb)

    def init(self, problem: Problem, point: Tensor) -> State:
        return self.squares.init(problem, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        climbing = number % (self.queries + self.climb) >= self.queries
        return Ask(need=Need.GRADIENT) if climbing else Ask()

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        cycle, at = divmod(number, self.queries + self.climb)
        if at < self.queries:
            point, state = self.squares.step(problem, found, state, cycle * self.queries + at)
            return (state["point"] if at == self.queries - 1 else point), state
        climbed = at - self.queries
        if climbed == self.climb - 1:
            # the chain goes on from its own best point
            value = state["value"]
            known = found.rows(slice(None)) if False else found
            point, _ = self.squares.step(problem, _unmoved(found, state), state, (cycle + 1) * self.queries - 1)
            return point, state
        size = self.size * (1 + math.cos(math.pi * climbed / self.climb)) / 2
        return problem.region.ascend(found.point, found.gradient, size), state


def _unmoved(found, state):
    from dataclasses import replace
    return replace(found, point=state["point"], value=state["value"].to(found.value.dtype))


@recipe("relay", needs="gradient", cost="rounds", source="x", budgets=("linf", "weighted", "l2"))
def relay(rounds: int = 10, queries: int = 100, climb: int = 12, size: float = 0.5, p: float = 0.8, rescale: bool = True, objective: str | None = None) -> Recipe:
    """Squares and steps."""
    return Recipe(search=Relay(rounds, queries, climb, size, RandomSquares(rounds * queries, p, rescale)), start=striped, objective=objective)
