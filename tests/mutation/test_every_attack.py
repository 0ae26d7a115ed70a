"""Every catalogued attack, broken in five ways, must turn its known answer red; the honest one, green.

The known answer: a linear model that only a large share of the budget, spent in the best direction, breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.attacks.contract import Ask, Problem, Search, State
from steepest.attacks.recipe import Recipe
from steepest.attacks.recipes import ATTACKS
from steepest.basis.box import Box
from steepest.basis.errors import ContractError
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Question
from steepest.models.model import Model
from tests.conformance.cases import NAMES, Case
from tests.conformance.laws import more_effort_never_hurts
from tests.conformance.table import ROWS, asks_for_gradients
from tests.mutation import mutants
from tests.tables import budgets

SHAPE, EPSILON = (1, 4, 4), 0.25
IN_CI = ("fgsm", "pgd", "apgd", "fmn", "square", "rays")
full = pytest.mark.full


class Plane(nn.Module):
    """Wrong exactly where ⟨w, p − x⟩ exceeds what `share` of the budget can gain in the best direction."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.x = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
        self.w = torch.linspace(-1, 2, 16, dtype=torch.float64).reshape(SHAPE)
        region = Region(budgets(SHAPE, EPSILON)[ROWS[name].budget], Box(0, 1), self.x)
        self.reach = ROWS[name].share * float(region.support(self.w.expand_as(self.x))[0])

    def forward(self, x: Tensor) -> Tensor:
        over = ((x - 0.5) * self.w).flatten(1).sum(1) - self.reach
        return torch.stack([-over, over], 1) / 2


def solves(name: str, made: Any = None) -> None:
    """The known answer of one attack, or of a recipe in its place."""
    plane = Plane(name)
    case = Case(plane, plane.x, torch.zeros(2, dtype=torch.int64))
    text = ROWS[name].solves or ROWS[name].call
    budget = case.budget(ROWS[name].budget, EPSILON)
    found = attack(text if made is None else made, Model(plane), case.x, case.y, budget)
    assert found.won.all(), f"{text} does not break a linear model within {ROWS[name].share} of its budget"
    assert (case.margin(found.point) > 0).all()


def identity(patch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    """The attack answers x."""
    made = ATTACKS.build(ROWS[name].solves or ROWS[name].call)
    honest = type(made).run

    def run(self: Any, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> Any:
        found = honest(self, problem, seed, judge_x=judge_x)
        return replace(found, point=problem.region.x, won=torch.zeros_like(found.won))

    patch.setattr(type(made), "run", run)
    return lambda: solves(name)


def minus_sign(patch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    """The gradient, or the value by which points are ranked, is that of the opposite."""
    if asks_for_gradients(name):
        mutants.minus_sign(patch)
    else:
        honest = Model.answer

        def answer(self: Model, question: Question) -> Evaluation:
            found = honest(self, question)
            slope = None if found.gradient is None else -found.gradient  # an estimated one
            return replace(found, value=-found.value, gradient=slope)

        patch.setattr(Model, "answer", answer)
    return lambda: solves(name)


def half_epsilon(patch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    mutants.half_epsilon(patch)
    return lambda: solves(name)


@dataclass(frozen=True)
class Cut:
    """A search that ends after fewer questions."""

    whole: Search
    steps: int

    def init(self, problem: Problem, point: Tensor) -> State:
        return self.whole.init(problem, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        return self.whole.ask(problem, state, number)

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        return self.whole.step(problem, found, state, number)


def shortest(name: str) -> Recipe:
    """The recipe cut to the fewest questions that still solve: its success is the point judged last.

    A shorter search walks the beginning of the same path, so success is monotone in its length.
    """
    made = ATTACKS.build(ROWS[name].solves or ROWS[name].call)
    assert isinstance(made, Recipe)

    def cut(steps: int) -> Recipe:
        return replace(made, search=Cut(made.search, steps), restarts=1)

    few, enough = 0, made.search.steps
    solves(name, cut(enough))
    while enough - few > 1:
        middle = (few + enough) // 2
        try:
            solves(name, cut(middle))
            enough = middle
        except (AssertionError, ContractError):  # the latter where it is cut while it asks about points outside
            few = middle
    return cut(enough)


def last_point_not_judged(patch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    """C1: the loop judges a point, moves, and leaves."""
    short = shortest(name)
    mutants.last_point_not_judged(patch)
    return lambda: solves(name, short)


def restart_chosen_per_batch(patch: pytest.MonkeyPatch, name: str) -> Callable[[], None]:
    """C3: all examples get the restart that was best on average."""
    mutants.restart_chosen_per_batch(patch)
    return lambda: luck_is_each_examples_own(name)


class Needles(nn.Module):
    """Wrong within a narrow band of a random direction of the input, another one for each example."""

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(40 * x.flatten(1).sum(1)) + torch.sin(23 * x.flatten(1)[:, 0]) - 1.2
        return torch.stack([-wave, wave], 1)


def luck_is_each_examples_own(name: str) -> None:
    x = torch.rand(24, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    net = Needles()
    keep = (net(x).argmax(1) == 0).nonzero().squeeze(1)
    case = Case(net, x[keep], torch.zeros(len(keep), dtype=torch.int64))
    for calls in restarting(name):
        more_effort_never_hurts(case, list(calls), ROWS[name].budget)


def restarting(name: str) -> list[tuple[str, ...]]:
    return [calls for calls in ROWS[name].effort if "restarts=" in calls[-1]]


def applies(mutant: str, name: str) -> bool:
    made, row = ATTACKS.build(ROWS[name].solves or ROWS[name].call), ROWS[name]
    if mutant == "restart chosen per batch":
        return bool(restarting(name)) and isinstance(made, Recipe) and row.random
    if not row.share:
        return False
    if mutant == "last point not judged":
        return isinstance(made, Recipe) and "labels" not in made.needs
    # Output-diversified steps have a random sign of their own.
    return mutant != "minus sign" or (ATTACKS.entry(name).facts["needs"] != "labels" and name != "odi")


MUTANTS = {
    "identity": identity,
    "minus sign": minus_sign,
    "half epsilon": half_epsilon,
    "last point not judged": last_point_not_judged,
    "restart chosen per batch": restart_chosen_per_batch,
}


@pytest.mark.parametrize("name", [name for name in NAMES if ROWS[name].share])
def test_the_honest_attack_knows_the_answer(name):
    solves(name)


@pytest.mark.parametrize(
    ("mutant", "name"),
    [
        pytest.param(mutant, name, marks=() if name in IN_CI else full)
        for mutant in MUTANTS
        for name in NAMES
        if applies(mutant, name)
    ],
)
def test_the_broken_attack_does_not(mutant, name, monkeypatch):
    law = MUTANTS[mutant](monkeypatch, name)
    with pytest.raises(AssertionError):
        law()
