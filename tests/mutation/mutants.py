"""Attacks broken on purpose, each in a way that some library of the field once was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from steepest.attacks import api, recipe
from steepest.attacks.ascent import GradientAscent, Jump
from steepest.attacks.best import Best
from steepest.attacks.loop import answered
from steepest.budgets.region import Region
from steepest.models.model import Model
from steepest.models.objectives import CrossEntropy, Margin, ScaledCrossEntropy

Mutant = Callable[[pytest.MonkeyPatch], None]


def identity(patch: pytest.MonkeyPatch) -> None:
    """No search ever moves."""
    for search in (Jump, GradientAscent):
        patch.setattr(search, "step", lambda self, problem, found, state, number: (found.point, state))


def minus_sign(patch: pytest.MonkeyPatch) -> None:
    """The handle returns the gradient of the opposite."""
    honest = Model.answer

    def answer(self, question):
        found = honest(self, question)
        turned = {name: -held for name in ("gradient", "jacobian") if (held := getattr(found, name)) is not None}
        return replace(found, **turned)

    patch.setattr(Model, "answer", answer)


def half_epsilon(patch: pytest.MonkeyPatch) -> None:
    """Only half of the budget is used."""
    patch.setattr(api, "Region", lambda budget, box, x: Region(budget.scaled(0.5), box, x))


def last_point_not_judged(patch: pytest.MonkeyPatch) -> None:
    """C1: the loop judges a point, moves, and leaves."""

    def run_search(problem, search, start):
        best = Best.none_yet(problem.region.x)
        point, state = start, search.init(problem, start)
        for number in range(search.steps):
            found = answered(problem, point, search.ask(problem, state, number), number, best)
            point, state = search.step(problem, found, state, number)
        return best

    patch.setattr(recipe, "run_search", run_search)


def last_instead_of_best(patch: pytest.MonkeyPatch) -> None:
    """C2: what is returned is where the search happened to end."""

    def learn(self, problem, found):
        self.point, self.outputs, self.won, self.value = found.point, found.outputs, found.won, found.value.double()

    patch.setattr(Best, "learn", learn)


def restart_chosen_per_batch(patch: pytest.MonkeyPatch) -> None:
    """C3: all examples get the restart that was best on average."""
    honest = recipe.Recipe.run

    def run(self, problem, seed=0, *, judge_x=False):
        tries = []
        for restart in range(self.restarts):
            other = replace(problem, stream=problem.stream.split(restart))
            tries.append(honest(replace(self, restarts=1), other, seed, judge_x=judge_x))
        return max(tries, key=lambda tried: int(tried.won.sum()))

    patch.setattr(recipe.Recipe, "run", run)


def unguarded(patch: pytest.MonkeyPatch) -> None:
    """The last check of what an attack returns is gone, so that only the laws are left to notice."""
    patch.setattr(recipe, "require_feasible", lambda problem, point, component: problem.region.gauge(point))


def overshoot(patch: pytest.MonkeyPatch) -> None:
    """C7: x + ε·sign(g) in the precision of x, and the excess of the rounding is not noticed."""

    def extreme(self, g):
        return (self.x + self.budget.extreme(g)).clamp(0, 1)

    patch.setattr(Region, "extreme", extreme)
    unguarded(patch)


def nan_taken_for_zero(patch: pytest.MonkeyPatch) -> None:
    """C10: a NaN gradient moves nothing and nobody is told."""
    honest = Model.answer

    def answer(self, question):
        found = honest(self, question)
        return replace(found, finite=torch.ones_like(found.finite))

    patch.setattr(Model, "answer", answer)


def coupled_batch(patch: pytest.MonkeyPatch) -> None:
    """C9: the momentum is normalised, and small gradients are dropped, by the mean over the whole batch."""
    honest = Model.answer

    def answer(self, question):
        found = honest(self, question)
        if found.gradient is None:
            return found
        small = found.gradient.abs() < found.gradient.abs().mean()
        return replace(found, gradient=found.gradient.masked_fill(small, 0))

    patch.setattr(Model, "answer", answer)


def zero_hides_the_own_class(patch: pytest.MonkeyPatch) -> None:
    """C8: the own class is masked by 0 instead of −∞."""

    def ascent(self, outputs, y):
        rival = outputs.scatter(1, y[:, None], 0.0).max(1).values
        return rival - outputs.gather(1, y[:, None]).squeeze(1)

    patch.setattr(Margin, "ascent", ascent)


def plain_cross_entropy(patch: pytest.MonkeyPatch) -> None:
    """C12: the default objective saturates like plain cross-entropy."""
    patch.setattr(ScaledCrossEntropy, "ascent", lambda self, outputs, y: CrossEntropy().ascent(outputs, y))


def box_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Points leave the limits of the data, and nobody checks."""

    def extreme(self, g):
        return self.x + self.budget.extreme(g) * (1 - 1e-6)

    patch.setattr(Region, "extreme", extreme)
    unguarded(patch)


def global_seed(patch: pytest.MonkeyPatch) -> None:
    """C15: the global generator is reseeded and stays so."""
    run_honestly = recipe.Recipe.run

    def run(self, problem, seed=0, *, judge_x=False):
        found = run_honestly(self, problem, seed, judge_x=judge_x)
        torch.manual_seed(seed)
        return found

    patch.setattr(recipe.Recipe, "run", run)
