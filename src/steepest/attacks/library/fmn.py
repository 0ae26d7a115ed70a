"""FMN: gradient steps inside a budget that shrinks while the model is wrong and grows while it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import between, whole
from steepest.attacks.contract import Ask, Prefer, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import cosine, margin_of, normalised
from steepest.attacks.smallest import farthest as farthest_point
from steepest.budgets.reach import slope
from steepest.models.contract import Evaluation, Need


@final
@dataclass(frozen=True, slots=True)
class BreathingBudget:
    """Step along g/‖g‖₂, then project into ε_t times the budget: ε_t·(1 − γ) at a success, ε_t·(1 + γ) after a first.

    Before any success ε_t is the gauge of the point plus its linearised distance to the boundary, |m| / dual(∇m), and
    a little more. It never exceeds the smallest success after one, nor what the box allows. Step size and γ fall on
    half a cosine each.
    """

    steps: int
    sizes: tuple[float, float]
    gammas: tuple[float, float]

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: ε_t, the gauges of the smallest success and of the farthest point of the box."""
        ones = torch.ones(point.shape[:1], dtype=torch.float64, device=point.device)
        farthest = problem.region.gauge(farthest_point(problem.region))
        return {"size": ones, "smallest": torch.full_like(ones, torch.inf), "farthest": farthest}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return Ask(need=Need.GRADIENT, ascent=margin_of(problem.objective))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        region = problem.region
        gamma = cosine(*self.gammas, number, self.steps)
        gauge = region.gauge(found.point)
        smallest = torch.where(found.won, torch.minimum(state["smallest"], gauge), state["smallest"])
        margin = margin_of(problem.objective).value(found.outputs, problem.y).double().abs()
        steep = _dual(problem, found.gradient)
        # Without a slope there is no distance: then the budget only grows.
        known = (steep > 0) & torch.isfinite(margin) & torch.isfinite(steep)
        # Exactly on the boundary, where a linear model's step would end, rounding alone decides.
        beyond = (1 + self.gammas[1]) * (gauge + margin / torch.where(known, steep, 1.0))
        guessed = torch.where(known, beyond, state["size"] * (1 + gamma))
        missed = torch.where(smallest.isinf(), guessed, state["size"] * (1 + gamma))
        size = torch.where(found.won, torch.minimum(state["size"] * (1 - gamma), smallest), missed).minimum(
            state["farthest"]
        )
        length = cosine(*self.sizes, number, self.steps) * region.box.side(region.x)
        point = region.scaled(size).project(
            (found.point.double() + length * normalised(region, found.gradient)).to(found.point.dtype)
        )
        return point, state | {"size": size, "smallest": smallest}


def _dual(problem: Problem, gradient: Tensor) -> Tensor:
    """Return the dual norm per unit of the budget; sets whose dual knows no bound without the box are asked in it."""
    budget, wide, limits = problem.region.budget, gradient.double(), problem.region.limits()
    free = budget.support(wide) if budget.convex else slope(budget, wide, limits)
    if bool(torch.isfinite(free).all()):
        return free
    return torch.where(torch.isfinite(free), free, slope(budget, wide, limits))


@recipe("fmn", needs="gradient", cost="steps × (F + B) + F", source="Pintor et al. 2021")
def fmn(
    steps: int = 100,
    step: float = 1.0,
    step_last: float = 0.01,
    gamma: float = 0.05,
    gamma_last: float = 0.001,
) -> Recipe:
    """Fast minimum-norm: gradient steps of the margin inside a budget of its own, which follows success.

    Steps are Euclidean and shrink from `step` to `step_last` times the box's widest side (published: inputs in
    [0, 1]), or in data units where the box is open; the budget changes by `gamma` … `gamma_last`. Any budget with a
    projection; a target is respected. Unlike the publication: the projection is the exact one into budget and box at
    once; the first guesses of the distance are enlarged by `gamma_last`, since a linear model's would end on the
    boundary itself; the last point is judged.
    """
    whole("fmn", "steps", steps, 0)
    for name, given in (("step", step), ("step_last", step_last)):
        between("fmn", name, given, 0, float("inf"))
    for name, given in (("gamma", gamma), ("gamma_last", gamma_last)):
        between("fmn", name, given, 0, 1)
    search = BreathingBudget(steps, (step, step_last), (gamma, gamma_last))
    return Recipe(search=search, prefer=Prefer.SMALLEST_GAUGE)
