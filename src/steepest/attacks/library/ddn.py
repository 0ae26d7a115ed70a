"""DDN: the direction follows the gradient, the length follows success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import between, whole
from steepest.attacks.contract import GRADIENT, Ask, Prefer, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import cosine, farthest, normalised, put
from steepest.basis.tensors import expand, flat
from steepest.models.contract import Evaluation

_FIRST, _LAST = 1.0, 0.01
"""The step along the normalised gradient, in sides of the box, from the first question to the last."""


@final
@dataclass(frozen=True, slots=True)
class DecoupledSphere:
    """Step by α along g/‖g‖₂, then put δ on the sphere whose radius shrinks by 1 − γ at a success, else grows by 1 + γ.

    α falls from 1 to 0.01 sides of the box on half a cosine.
    """

    steps: int
    gamma: float
    norm0: float

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the radius of the sphere and that of the whole box, in data units."""
        radius = torch.full(point.shape[:1], self.norm0, dtype=torch.float64, device=point.device)
        radius = radius * problem.region.box.side(point)
        return {"radius": radius, "most": problem.region.norm(farthest(problem.region))}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        region = problem.region
        radius = state["radius"]
        radius = torch.where(found.won, radius * (1 - self.gamma), radius * (1 + self.gamma)).minimum(state["most"])
        size = cosine(_FIRST, _LAST, number, self.steps) * region.box.side(region.x)
        delta = found.point.double() - region.x.double() + size * normalised(region, found.gradient)
        length = flat(delta).square().sum(1).sqrt()
        onto = torch.where(length > 0, radius / length, 0.0)
        return put(region, region.x.double() + expand(onto, delta) * delta), state | {"radius": radius}


@recipe("ddn", needs="gradient", cost="steps × (F + B) + F", source="Rony et al. 2019", budgets=("l2",))
def ddn(steps: int = 100, gamma: float = 0.05, norm0: float = 1.0) -> Recipe:
    """Decoupled direction and norm: gradient steps on a sphere around x whose radius follows success.

    The gradient is that of the problem's objective: scaled cross-entropy, the default, is the published cross-entropy
    with logits over their own top-two gap, which does not vanish where the model is sure; the published one is
    `objective="ce"`. Unlike the publication: points are not rounded to 256 levels; the last point is judged too; a
    zero gradient is no random direction but no step.

    Args:
        gamma: by what share the radius changes.
        norm0: the radius of the first sphere, as a share of the box's widest side (published: inputs in [0, 1]); in
            data units where the box is open.
    """
    whole("ddn", "steps", steps, 0)
    between("ddn", "gamma", gamma, 0, 1)
    between("ddn", "norm0", norm0, 0)
    return Recipe(search=DecoupledSphere(steps, gamma, norm0), prefer=Prefer.SMALLEST_GAUGE)
