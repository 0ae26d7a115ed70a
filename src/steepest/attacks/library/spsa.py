"""Adam on gradients that simultaneous perturbations estimate from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from steepest.attacks.adam import adam_step, at_rest
from steepest.attacks.checks import positive, whole
from steepest.attacks.contract import GRADIENT, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.models.contract import Evaluation
from steepest.models.estimated import Estimated


@final
@dataclass(frozen=True, slots=True)
class AdamAscent:
    """Steps of Adam (Kingma & Ba 2015), each projected into the region.

    A coordinate whose gradients were all zero stands still, so no constant is added to the root: the walk does not
    depend on the scale of the scores.

    Args:
        steps: how many gradients are taken.
        size: the learning rate, in sides of the box.
    """

    steps: int
    size: float

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the running means of the gradients and of their squares."""
        return at_rest(point.double())

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        rate = -self.size * problem.region.box.side(found.point)
        move, state = adam_step(found.gradient.double(), state, number, rate, floor=0.0)
        point = (found.point.double() + move).to(found.point.dtype)
        return problem.region.project(point), state


@recipe("spsa", needs="scores", cost="steps × (1 + 2 × samples) F + F", source="Uesato et al. 2018")
def spsa(steps: int = 100, samples: int = 128, delta: float = 0.01, lr: float = 0.01) -> Recipe:
    """Adam from x on gradients estimated from `samples` pairs of points ± δu around the point, u of random signs.

    δ and the learning rate `lr` are shares of the box's widest side (published: inputs in [0, 1]), in data units where
    the box is open.
    """
    whole("spsa", "steps", steps, 0)
    positive("spsa", "lr", lr)
    positive("spsa", "delta", delta)
    return Recipe(search=AdamAscent(steps, lr), oracle=Estimated(samples, delta, draw="signs", in_sides=True))
