"""Momentum ascent and the parts that transfer attacks add to it; each is neutral by default, and all combine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from steepest.attacks.ascent import accumulated
from steepest.attacks.contract import GRADIENT, VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe
from steepest.basis.errors import UsageError
from steepest.basis.images import require_images
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat, inner
from steepest.models.contract import Evaluation, Need
from steepest.models.views import Views

_JUDGE, _CLIMB, _AROUND, _END = "judge", "climb", "around", "end"
_INFORM = Ask(need=Need.GRADIENT, judged=0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumAscent:
    """Steps along v ← μ·v + u/mean|u|, x ← P(x + size · ascend(v)), where u is the gradient as the parts change it.

    u = smooth(∇ + s): `kernel` smooths it (Dong et al. 2019), s is the variance of the last step's neighbourhood,
    s = mean over neighbours of ∇(x + r) − ∇(x), r uniform in `radius` times the budget (Wang & He 2021). With
    `nesterov` ∇ is taken at the look-ahead x + α·μ·v (Lin et al. 2020), α the size of a step per coordinate:
    ⟨step, v⟩/Σ|v|, which in an L∞ ball is the step. The look-ahead is projected into the region, since every point
    that is asked may be the answer; the publication does not. Without any part it is the momentum iterative method,
    and with μ = 0 the basic one. The neighbours of the last step would inform nobody, and are not asked about.

    Args:
        gradients: how many steps.
        size: of one, as a fraction of the budget.
        momentum: μ ≥ 0.
        nesterov: look ahead; the points stepped to are then judged by one forward each.
        variance: how many neighbours; 0: no variance.
        radius: of their neighbourhood, in budgets.
        kernel: odd width of the Gaussian in pixels, whose standard deviation is a third of its half; 1: no smoothing.

    Raises:
        UsageError: a parameter outside its range; a kernel for inputs that are no images.
    """

    gradients: int
    size: float
    momentum: float = 1.0
    nesterov: bool = False
    variance: int = 0
    radius: float = 1.5
    kernel: int = 1
    phases: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for name, least, what in (("gradients", 0, "steps"), ("variance", 0, "variance"), ("kernel", 1, "kernel")):
            given = getattr(self, name)
            if not isinstance(given, int) or given < least:
                raise UsageError(f"{what}={given!r} is not allowed; give a whole number of at least {least}.")
        if not self.kernel % 2:
            raise UsageError(f"kernel={self.kernel} is not allowed; give an odd width in pixels, e.g. 15.")
        if not 0 < self.size < math.inf:
            raise UsageError(f"a step of {self.size!r} is not allowed; give a positive share of the budget, e.g. 1/10.")
        if not 0 <= self.momentum < math.inf:
            raise UsageError(f"momentum={self.momentum!r} is not allowed; give a finite number of at least 0.")
        if not 0 < self.radius < math.inf:
            raise UsageError(f"radius={self.radius!r} is not allowed; give a positive number of budgets, e.g. 1.5.")
        phases = []
        for step in range(self.gradients):
            phases += [_JUDGE] if self._looks_ahead and step else []
            phases += [_CLIMB]
            phases += [_AROUND] if self.variance and step < self.gradients - 1 else []
        object.__setattr__(self, "phases", (*phases, _END))

    @property
    def _looks_ahead(self) -> bool:
        return self.nesterov and self.momentum > 0

    @property
    def steps(self) -> int:
        """See `Search.steps`: the gradients, the points judged on the way, and the questions about neighbours."""
        return len(self.phases) - 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the velocity, the variance, and where the next step sets out."""
        if self.kernel > 1:
            require_images(point, f"kernel={self.kernel}", "smoothing exists for images; give kernel=1 (mi-fgsm)")
        zeros = point.new_zeros(point.shape)
        state = {"velocity": zeros} if self.momentum else {}
        state |= {"iterate": point} if self.variance or self._looks_ahead else {}
        return state | ({"variance": zeros, "gradient": zeros} if self.variance else {})

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return {_JUDGE: VALUE, _CLIMB: GRADIENT, _AROUND: _INFORM}[self.phases[number]]

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        iterate = state.get("iterate", found.point)
        if self.phases[number] == _CLIMB:
            iterate, state = self._climbed(problem, found, iterate, state)
        elif self.phases[number] == _AROUND:
            assert found.gradient is not None
            state = state | {"variance": found.gradient.mean(1) - state["gradient"]}
        following = self.phases[number + 1]
        if following == _AROUND:
            return self._neighbours(problem, found.point, number), state
        if following == _CLIMB and self._looks_ahead:
            return self._ahead(problem, iterate, state["velocity"]), state
        return iterate, state

    def _climbed(self, problem: Problem, found: Evaluation, iterate: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the next iterate and the state after it."""
        assert found.gradient is not None
        direction, state = found.gradient, dict(state)
        if self.variance:
            direction = direction + state["variance"]
            state["gradient"] = found.gradient
        if self.kernel > 1:
            direction = smoothed(direction, self.kernel)
        if self.momentum:
            direction = state["velocity"] = accumulated(state["velocity"], direction, self.momentum)
        following = problem.region.ascend(iterate, direction, self.size)
        if "iterate" in state:
            state["iterate"] = following
        return following, state

    def _ahead(self, problem: Problem, iterate: Tensor, velocity: Tensor) -> Tensor:
        move = problem.region.stride(iterate, velocity)
        share = flat(velocity.abs().masked_fill(move == 0, 0)).double().sum(1)
        size = self.size * self.momentum * inner(move, velocity) / share.masked_fill(share == 0, 1)
        return problem.region.project(iterate + expand(size, velocity).to(velocity.dtype) * velocity)

    def _neighbours(self, problem: Problem, point: Tensor, number: int) -> Tensor:
        """Return [N, variance, *features]; what cannot move stays."""
        count, region = point.shape[0], problem.region
        rows = torch.arange(count, device=point.device).repeat_interleave(self.variance)
        keys = [problem.stream.split(neighbour + 1).keys for neighbour in range(self.variance)]
        stream = Stream(torch.stack(keys, 1).flatten())
        near = region.rows(rows).scaled(self.radius)
        drawn = near.budget.sample(near.x, stream, number, near.bounding(point[rows]))
        drawn = drawn.reshape(count, self.variance, *point.shape[1:])
        around = (point[:, None].double() + drawn).to(point.dtype)
        return torch.where(region.movable().expand_as(point)[:, None], around, point[:, None])


def smoothed(image: Tensor, kernel: int) -> Tensor:
    """Return images [N, C, H, W] smoothed by a Gaussian `kernel` pixels wide, σ = (kernel − 1)/6; zeros around.

    >>> smoothed(torch.ones(1, 1, 1, 3), 3)
    tensor([[[[0.9676, 0.9783, 0.9676]]]])
    """
    weights = torch.linspace(-3, 3, kernel, dtype=torch.float64, device=image.device).square().mul(-0.5).exp()
    wide = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    line = (weights / weights.sum()).to(wide.dtype).reshape(1, 1, kernel, 1)
    each = wide.flatten(0, 1)[:, None]
    half = kernel // 2
    done = conv2d(conv2d(each, line, padding=(half, 0)), line.mT, padding=(0, half))
    return done.reshape(image.shape).to(image.dtype)


def momentum_recipe(
    steps: int,
    momentum: float,
    *,
    nesterov: bool = False,
    variance: int = 0,
    radius: float = 1.5,
    diversity: float = 0.0,
    resize: float = 0.9,
    kernel: int = 1,
    scales: int = 1,
) -> Recipe:
    """Return momentum ascent from x in `steps` steps of 1/steps of the budget, with the parts that are not neutral."""
    views = Views(scales=scales, diversity=diversity, resize=resize)
    search = MomentumAscent(
        gradients=steps,
        size=1 / max(steps, 1) if isinstance(steps, int) else 1.0,
        momentum=momentum,
        nesterov=nesterov,
        variance=variance,
        radius=radius,
        kernel=kernel,
    )
    return Recipe(search=search, oracle=None if views.neutral else views)
