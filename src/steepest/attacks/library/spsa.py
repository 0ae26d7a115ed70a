"""Adam on gradients that simultaneous perturbations estimate from scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.contract import GRADIENT, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.errors import UsageError
from steepest.models.contract import Evaluation
from steepest.models.estimated import Estimated

_MEAN, _SQUARE = 0.9, 0.999


@final
@dataclass(frozen=True, slots=True)
class AdamAscent:
    """Steps of Adam (Kingma & Ba 2015), each projected into the region.

    A coordinate whose gradients were all zero stands still, so no constant is added to the root: the walk does not
    depend on the scale of the scores.

    Args:
        steps: how many gradients are taken.
        size: the learning rate, in data units.
    """

    steps: int
    size: float

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the running means of the gradients and of their squares."""
        zero = point.new_zeros(point.shape, dtype=torch.float64)
        return {"mean": zero, "square": zero.clone()}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        slope = found.gradient.double()
        mean = torch.lerp(slope, state["mean"], _MEAN)
        square = torch.lerp(slope.square(), state["square"], _SQUARE)
        root = (square / (1 - _SQUARE ** (number + 1))).sqrt_()
        move = mean / (1 - _MEAN ** (number + 1)) / root.masked_fill(root == 0, 1)
        point = (found.point.double() + self.size * move).to(found.point.dtype)
        return problem.region.project(point), {"mean": mean, "square": square}


@recipe("spsa", needs="scores", cost="steps × (1 + 2 × samples) F + F", source="Uesato et al. 2018")
def spsa(steps: int = 100, samples: int = 128, delta: float = 0.01, lr: float = 0.01) -> Recipe:
    """Adam from x on gradients estimated from `samples` pairs of points ± δu around the point, u of random signs.

    δ and the learning rate `lr` are in data units, as published.
    """
    if not isinstance(steps, int) or steps < 0:
        raise UsageError(f"spsa: steps={steps!r} is not allowed; give a whole number of at least 0.")
    if not 0 < lr < math.inf:
        raise UsageError(f"spsa: lr={lr!r} is not allowed; give a positive step in data units, e.g. 0.01.")
    return Recipe(search=AdamAscent(steps, lr), oracle=Estimated(samples, delta, draw="signs"))
