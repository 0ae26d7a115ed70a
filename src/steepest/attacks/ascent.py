"""Searches that follow the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from steepest.attacks.checks import between, positive, whole
from steepest.attacks.contract import GRADIENT, Ask, Problem, State
from steepest.basis.tensors import expand, flat
from steepest.models.contract import Evaluation


@final
@dataclass(frozen=True, slots=True)
class Jump:
    """Go at once to the point of the region that the gradient recommends: x + extreme(∇), exact for a linear model."""

    steps: ClassVar[int] = 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        assert found.gradient is not None
        return problem.region.extreme(found.gradient), state


@final
@dataclass(frozen=True, slots=True)
class GradientAscent:
    """Step along the gradient in the geometry of the budget, then project: x ← P(x + size · ascend(v)).

    v is the gradient, or with momentum μ > 0 the sum v ← μ·v + ∇/mean|∇| (Dong et al. 2018).

    Args:
        steps: how many gradients are taken.
        size: of one step, as a fraction of the budget.
        momentum: μ ≥ 0.

    Raises:
        UsageError: steps that are no whole number, a size that is not positive, a negative momentum.
    """

    steps: int
    size: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        whole("", "steps", self.steps, 0)
        positive("", "step", self.size, "give a positive share of the budget, e.g. 1/8")
        between("", "momentum", self.momentum, 0)

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the velocity, if there is momentum."""
        return {"velocity": point.new_zeros(point.shape)} if self.momentum else {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        direction = found.gradient
        assert direction is not None
        if self.momentum:
            direction = accumulated(state["velocity"], direction, self.momentum)
            state = {"velocity": direction}
        return problem.region.ascend(found.point, direction, self.size), state


def size_of(step: float | None, steps: int) -> float:
    """Return the size of a step as a share of the budget: 2.5/steps if left out, which crosses the budget and more.

    >>> size_of(None, 20), size_of(0.3, 20)
    (0.125, 0.3)
    """
    if step is not None:
        return step
    whole("", "steps", steps, 0)
    return 2.5 / max(steps, 1)


def accumulated(velocity: Tensor, gradient: Tensor, momentum: float) -> Tensor:
    """Return μ·v + ∇/mean|∇|, the running sum of Dong et al. 2018."""
    mean = expand(flat(gradient.abs()).mean(1), gradient)
    # A zero gradient adds nothing; dividing by its mean would turn the velocity into NaN for good.
    return momentum * velocity + gradient / mean.masked_fill(mean == 0, 1)
