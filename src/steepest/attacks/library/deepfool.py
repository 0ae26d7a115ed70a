"""DeepFool: to the nearest of the linearised boundaries, again and again, until one is crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steepest.attacks.checks import between, whole
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import nearest_plane, own_and_rivals, put
from steepest.budgets.reach import nearest, slope, ways
from steepest.models.contract import Evaluation, Need

_LEAST = 1e-6
"""The shortest step in data units: a point that lies exactly on a boundary must leave it."""


@final
@dataclass(frozen=True, slots=True)
class NearestBoundary:
    """Sum up the smallest steps to the nearest linearised boundary; visit x + (1 + overshoot) · Σ steps.

    The first question, at x, ranks the classes; each other one asks for the gradients of `classes` outputs.
    """

    rounds: int
    overshoot: float
    classes: int
    ends_at_success: ClassVar[bool] = True

    @property
    def steps(self) -> int:
        """See `Search.steps`."""
        return self.rounds + 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the sum of the steps, in float64."""
        return {"sum": torch.zeros_like(point, dtype=torch.float64)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return Ask(need=Need.JACOBIAN, classes=state["classes"]) if number else VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        if not number:
            return found.point, state | {"classes": own_and_rivals(found.outputs, problem.y, self.classes)}
        region = problem.region
        ahead, w = nearest_plane(problem, found, state["classes"])
        limits = region.room(found.point)
        unit = region.budget.norm(region.budget.extreme(w, ways(region.budget, limits)))
        least = torch.where(unit > 0, slope(region.budget, w, limits) * _LEAST / unit, 0.0)
        moved = state["sum"] + nearest(region.budget, w, torch.maximum(ahead.abs(), least), limits)
        return put(region, region.x.double() + (1 + self.overshoot) * moved), state | {"sum": moved}


@recipe(
    "deepfool",
    needs="gradient",
    cost="at most steps × (F + classes × B) + 2 F; ends at the first success",
    source="Moosavi-Dezfooli, Fawzi & Frossard 2016",
)
def deepfool(steps: int = 50, overshoot: float = 0.02, classes: int = 10) -> Recipe:
    """Step to the nearest linearised boundary among the `classes` likeliest classes at x (the own one included).

    The rival is argmin |z_k − z_y| / dual(w_k), w_k = ∇(z_k − z_y); the point is x + (1 + overshoot) · Σ steps. Linear
    classifiers: the exact distance times 1 + overshoot after one step. It leaves y, whatever the objective ascends.

    Unlike the publication: any budget by its dual norm; a step is the smallest one inside the box, not clipped
    afterwards, and dual norms leave out what the box holds; in the place of the added 1e-4, which depends on the
    scale of the logits or the data, a step is at least 1e-6 long.
    """
    whole("deepfool", "steps", steps, 0)
    whole("deepfool", "classes", classes, 2)
    between("deepfool", "overshoot", overshoot, 0, float("inf"))
    return Recipe(search=NearestBoundary(steps, overshoot, classes), untargeted=True, prefer=Prefer.SMALLEST_GAUGE)
