"""The attack of Carlini & Wagner: Adam on squared length plus hinge, in a space where the box is everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.adam import adam_step, at_rest
from steepest.attacks.checks import between, positive, whole
from steepest.attacks.contract import Ask, Prefer, Problem, State
from steepest.attacks.penalty import constants, next_constant, reached, working
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import margin_of
from steepest.basis.errors import UsageError
from steepest.basis.tensors import expand
from steepest.models.contract import Evaluation, Need

_WITHIN = 0.999999
"""On the box's faces tanh is flat and its inverse infinite: values start this share of the way from the middle."""


@final
@dataclass(frozen=True, slots=True)
class TanhDescent:
    """Minimise ‖δ/s‖² + c · max(κ − v, 0) over w, where the point is middle + half · tanh(w); c is searched for.

    v is the negative margin and s the box's widest side, which makes the search the same in all units. Every search
    starts at x with Adam at rest; between searches c is bisected, or multiplied by ten until one suffices.

    Args:
        searches: how many values of c.
        each: Adam's steps for each of them.
        rate: Adam's, in w.
        c: the first.
        confidence: κ.
    """

    searches: int
    each: int
    rate: float
    c: float
    confidence: float

    @property
    def steps(self) -> int:
        """See `Search.steps`."""
        return self.searches * self.each

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: w, Adam's moments and the bracket of c."""
        lower, upper = problem.region.box.bounds(point)
        if not bool((lower.isfinite() & upper.isfinite()).all()):
            raise UsageError(
                f"cw: the box {problem.region.box!r} has a bound that is not finite; tanh reaches finite boxes only. "
                "Give the range of the data (box=(low, high), --box low,high), or take an attack that works in the "
                "input space itself: `steepest list attacks --budget l2`."
            )
        w = _inverse(problem, point.to(working(point)))
        return {"w": w, **at_rest(w), **constants(w, self.c)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`: the margin is differentiated, whatever ranks."""
        return Ask(need=Need.GRADIENT, ascent=margin_of(problem.objective))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        closed = reached(problem, found, self.confidence)
        sufficed, count = state["sufficed"] | closed, number % self.each
        if count == self.each - 1 and number < self.steps - 1:
            w = _inverse(problem, problem.region.x.to(state["w"]))
            return problem.region.x, {"w": w, **at_rest(w), **next_constant(state, sufficed)}
        move, moments = adam_step(self._slope(problem, found, state, closed), state, count, self.rate)
        w = state["w"] + move
        middle, half = _middle_and_half(problem, w)
        point = problem.region.loose().project(middle + half * w.tanh())
        return point, {**state, **moments, "w": w, "sufficed": sufficed}

    def _slope(self, problem: Problem, found: Evaluation, state: State, closed: Tensor) -> Tensor:
        """Return the gradient with respect to w; 0 where the budget lets nothing move."""
        assert found.gradient is not None
        w, x = state["w"], problem.region.x
        side = problem.region.box.side(problem.region.x)
        pull = 2 * (found.point.to(w) - x.to(w)) / side.square()
        push = expand(torch.where(closed, 0.0, state["c"]), w) * found.gradient.to(w)
        steepness = _middle_and_half(problem, w)[1] * (1 - w.tanh().square())
        return torch.where(problem.region.movable(), (pull - push) * steepness, 0.0)


def _middle_and_half(problem: Problem, like: Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = problem.region.box.bounds(problem.region.x)
    return ((upper + lower) / 2).to(like), ((upper - lower) / 2).to(like)


def _inverse(problem: Problem, point: Tensor) -> Tensor:
    """Return the w of a point, finite also on the box's faces and where the box has no width."""
    middle, half = _middle_and_half(problem, point)
    share = (point - middle) / torch.where(half > 0, half, 1.0)
    return (_WITHIN * share.clamp(-1, 1)).atanh()


@recipe(
    "cw",
    needs="gradient",
    cost="searches × steps × (F + B) + F",
    source="Carlini & Wagner 2017",
    budgets=("l2",),
)
def cw(steps: int = 1000, searches: int = 9, lr: float = 0.01, c: float = 1e-3, confidence: float = 0.0) -> Recipe:
    """Adam on squared length plus c times the margin's hinge in tanh space; the smallest success is kept.

    `steps` is for each of the `searches` for c; 1000 where the paper takes 10000 and stops early, which we never do,
    because examples of a batch walk in step. The box must be finite. Values on its faces can move: they start
    slightly inside. A `confidence` drives the search until the margin is that far beyond the boundary; the point
    kept is the smallest that reaches the goal, so a margin that must hold belongs into `goal` as well.
    """
    whole("cw", "steps", steps, 1)
    whole("cw", "searches", searches, 1)
    positive("cw", "lr", lr)
    positive("cw", "c", c)
    between("cw", "confidence", confidence, 0)
    return Recipe(search=TanhDescent(searches, steps, lr, c, confidence), prefer=Prefer.SMALLEST_GAUGE)
