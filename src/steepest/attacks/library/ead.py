"""The elastic-net attack: shrinkage keeps most coordinates where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import between, positive, whole
from steepest.attacks.contract import VALUE, Ask, Prefer, Problem, State
from steepest.attacks.penalty import constants, next_constant, reached, working
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import margin_of
from steepest.basis.tensors import expand
from steepest.models.contract import Evaluation, Need


@final
@dataclass(frozen=True, slots=True)
class ElasticDescent:
    """Minimise ‖δ/s‖² + c · max(κ − v, 0) by gradient steps, each followed by shrinkage of δ/s by β; FISTA.

    v is the negative margin, s the box's widest side. Step k is z = y_k − α∇, α = rate·√(1 − k/each);
    x_{k+1} is z with every |z − x|/s reduced by β, at least to 0; y_{k+1} = x_{k+1} + k/(k+3) · (x_{k+1} − x_k).
    Two questions belong to a step: the gradient at y_k, and whether x_{k+1} is a success.

    We differ in two points: y_k is projected into the box, so that it may become the result too, and the smallest
    by the budget is kept, which is the paper's L1 rule.

    Args:
        searches: how many values of c.
        each: steps for each of them.
        rate: the first α.
        c: the first.
        beta: β.
        confidence: κ.
    """

    searches: int
    each: int
    rate: float
    c: float
    beta: float
    confidence: float

    @property
    def steps(self) -> int:
        """See `Search.steps`; the very last x_{k+1} is judged by the loop."""
        return 2 * self.searches * self.each - 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the last two perturbations, in units of the box, and the bracket of c."""
        still = torch.zeros_like(point, dtype=working(point))
        return {"now": still, "last": still, **constants(still, self.c)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`: the gradient of the margin, and a value in turn."""
        return VALUE if number % 2 else Ask(need=Need.GRADIENT, ascent=margin_of(problem.objective))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        closed = reached(problem, found, self.confidence)
        state = {**state, "sufficed": state["sufficed"] | closed}
        count = number % (2 * self.each) // 2
        if number % 2 == 0:
            now = self._shrunk(problem, found, state, closed, count)
            return _point(problem, now), {**state, "now": now, "last": state["now"]}
        if count < self.each - 1:
            now = state["now"]
            return _point(problem, now + count / (count + 3) * (now - state["last"])), state
        still = torch.zeros_like(state["now"])
        return problem.region.x, {"now": still, "last": still, **next_constant(state, state["sufficed"])}

    def _shrunk(self, problem: Problem, found: Evaluation, state: State, closed: Tensor, count: int) -> Tensor:
        assert found.gradient is not None
        side, like = problem.region.box.side(problem.region.x), state["now"]
        slack = (found.point.to(like) - problem.region.x.to(like)) / side
        push = expand(torch.where(closed, 0.0, state["c"]), like) * (found.gradient.to(like) * side)
        moved = slack - self.rate * (1 - count / self.each) ** 0.5 * (2 * slack - push)
        shrunk = moved.sign() * (moved.abs() - self.beta).clamp_min_(0)
        return torch.where(problem.region.movable(), shrunk, 0.0)


def _point(problem: Problem, delta: Tensor) -> Tensor:
    return problem.region.loose().project(
        problem.region.x.to(delta) + problem.region.box.side(problem.region.x) * delta
    )


@recipe(
    "ead",
    needs="gradient",
    cost="searches × steps × (2 F + B)",
    source="Chen et al. 2018",
    budgets=("l1",),
)
def ead(
    steps: int = 1000,
    searches: int = 9,
    lr: float = 0.01,
    c: float = 1e-3,
    beta: float = 0.01,
    confidence: float = 0.0,
) -> Recipe:
    """Accelerated gradient steps on squared length plus the margin's hinge, with shrinkage; the smallest is kept.

    `steps` is for each of the `searches` for c; there is no early stop, because examples of a batch walk in step.
    `beta` and `lr` are in units of the box's widest side; beta=0 is plain gradient descent with momentum.
    """
    whole("ead", "steps", steps, 1)
    whole("ead", "searches", searches, 1)
    positive("ead", "lr", lr)
    positive("ead", "c", c)
    between("ead", "beta", beta, 0)
    between("ead", "confidence", confidence, 0)
    return Recipe(search=ElasticDescent(searches, steps, lr, c, beta, confidence), prefer=Prefer.SMALLEST_GAUGE)
