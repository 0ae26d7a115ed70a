"""σ-zero: few coordinates, found with a smooth count and a threshold that adapts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.adam import adam_step, at_rest
from steepest.attacks.checks import between, positive, whole
from steepest.attacks.contract import Ask, Prefer, Problem, State
from steepest.attacks.penalty import working
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import margin_of
from steepest.basis.tensors import expand, flat
from steepest.models.contract import Evaluation, Need


@final
@dataclass(frozen=True, slots=True)
class SmoothCount:
    """Minimise max(m, 0) + mean of δᵢ²/(δᵢ² + σ) by Adam, then put coordinates with |δᵢ| < τ back to x.

    m is the margin; δ is in units of the box's widest side. The gradient is divided by its largest entry. The rate η
    falls from `rate` to a tenth along a cosine. τ rises by factor·η after a success and falls by it after a failure.

    Args:
        steps: Adam's.
        rate: η at the first step.
        sigma: σ, how smooth the count is.
        threshold: the first τ.
        factor: how fast τ adapts.
    """

    steps: int
    rate: float
    sigma: float
    threshold: float
    factor: float

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: Adam's moments and τ."""
        like = point.to(working(point))
        return {"threshold": like.new_full(like.shape[:1], self.threshold), **at_rest(like)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`: the margin is differentiated, whatever ranks."""
        return Ask(need=Need.GRADIENT, ascent=margin_of(problem.objective))

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        side, x, like = problem.region.box.side(problem.region.x), problem.region.x, state["mean"]
        delta = (found.point.to(like) - x.to(like)) / side
        slope = self._slope(found, delta, side)
        slope = torch.where(problem.region.movable(), slope, 0.0)
        largest = flat(slope.abs()).amax(1) if slope.numel() else slope.new_ones(slope.shape[0])
        slope = slope / expand(largest.masked_fill(largest == 0, 1), slope)
        move, moments = adam_step(slope, state, number, self._rate(max(number - 1, 0)))
        point = problem.region.loose().project(x.to(like) + side * (delta + move))
        drift = torch.where(found.won, 1.0, -1.0).to(like) * (self.factor * self._rate(number))
        threshold = (state["threshold"] + drift).clamp_(0, 1)
        small = (point.to(like) - x.to(like)).abs() < side * expand(threshold, like)
        return torch.where(small, x, point), {**moments, "threshold": threshold}

    def _slope(self, found: Evaluation, delta: Tensor, side: Tensor) -> Tensor:
        """Return the gradient of the loss with respect to δ."""
        assert found.gradient is not None
        size = max(1, math.prod(delta.shape[1:]))
        count = 2 * self.sigma / size * delta / (delta.square() + self.sigma).square()
        push = found.gradient.to(delta) * side
        return count - torch.where(expand(found.won, push), torch.zeros_like(push), push)

    def _rate(self, number: int) -> float:
        """Return η after question `number`."""
        return self.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * number / self.steps)))


@recipe("sigma-zero", needs="gradient", cost="steps × (F + B) + F", source="Cinà et al. 2025", budgets=("l0",))
def sigma_zero(
    steps: int = 1000, lr: float = 1.0, sigma: float = 1e-3, threshold: float = 0.3, factor: float = 0.01
) -> Recipe:
    """Adam on the margin's hinge plus a smooth count of changed values; small changes are taken back at once."""
    whole("sigma-zero", "steps", steps, 1)
    positive("sigma-zero", "lr", lr)
    positive("sigma-zero", "sigma", sigma)
    between("sigma-zero", "threshold", threshold, 0)
    between("sigma-zero", "factor", factor, 0)
    return Recipe(search=SmoothCount(steps, lr, sigma, threshold, factor), prefer=Prefer.SMALLEST_GAUGE)
