"""How the points that are trained on are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from steepest.basis.errors import UsageError
from steepest.budgets.region import Region
from steepest.harden.contract import Lesson
from steepest.models.contract import Objective
from steepest.models.model import Model
from steepest.models.objectives import CrossEntropy, Custom

MODES = ("train", "eval")

NOISE, PROBE = 0, 1
"""Numbers of a lesson's draws: where the search starts, and where a regulariser looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where training points are, and what was met on the way.

    Attributes:
        point: [N, *features], detached.
        clean: the outputs at x, where they were asked for.
        slope: the gradient of the cross-entropy at x, where it was asked for.
        forwards, backwards: passes over the batch.
    """

    point: Tensor
    clean: Tensor | None = None
    slope: Tensor | None = None
    forwards: int = 0
    backwards: int = 0


class Craft(Protocol):
    """A way of finding training points; the model is as it was afterwards, batch-norm statistics included."""

    def find(self, model: Model, lesson: Lesson) -> Found:
        """Return the points of one lesson."""


@contextmanager
def asking(model: Model, mode: str) -> Iterator[None]:
    """Hold a model still for the questions of one craft, in training mode as it is, or in evaluation mode."""
    with model.borrowed():
        if mode == "eval" and isinstance(model.network, nn.Module):
            model.network.eval()
        yield


def require_mode(mode: str) -> None:
    """Refuse another mode than those of a network.

    Raises:
        UsageError: names both.
    """
    if mode not in MODES:
        raise UsageError(
            f"craft_mode={mode!r} is not allowed: give 'train' (batch statistics, dropout: the network that is "
            "trained) or 'eval' (running statistics: the network that will be used)."
        )


def require_least(name: str, value: float, least: float) -> None:
    """Refuse a number below the least allowed.

    Raises:
        UsageError: names both.
    """
    if not value >= least:
        raise UsageError(f"{name}={value!r} is not allowed: give {least:g} or more.")


@final
@dataclass(frozen=True, slots=True)
class Clean:
    """Train at x itself."""

    def find(self, model: Model, lesson: Lesson) -> Found:
        """See `Craft.find`."""
        return Found(point=lesson.x)


@final
@dataclass(frozen=True, slots=True)
class Gaussian:
    """x + σ·N(0, 1) in data units, whatever budget and box say: the law that randomised smoothing averages over."""

    sigma: float

    def __post_init__(self) -> None:
        require_least("sigma", self.sigma, 0)

    def find(self, model: Model, lesson: Lesson) -> Found:
        """See `Craft.find`."""
        return Found(point=_normal(lesson, self.sigma))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """From x to the extreme point of the region along the gradient there."""

    craft_mode: str

    def __post_init__(self) -> None:
        require_mode(self.craft_mode)

    def find(self, model: Model, lesson: Lesson) -> Found:
        """See `Craft.find`."""
        with asking(model, self.craft_mode):
            clean, slope = model.slope(lesson.x, lesson.y, CrossEntropy())
        point = lesson.region.extreme(slope)
        return Found(point=point, clean=clean, slope=slope, forwards=1, backwards=1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """From a random start along gradients; all lengths are fractions of the budget.

    Attributes:
        start: the region and the lesson → the first point.
        steps, step: how many, and how far each of them goes.
        reach: the multiple of the budget that points are kept in; if not 1, no start and steps may go farther.
        deviates: ascend the divergence of the outputs from those at x, instead of the cross-entropy with y.
    """

    start: Callable[[Lesson], Tensor]
    steps: int
    step: float
    craft_mode: str
    reach: float = 1.0
    deviates: bool = False

    def __post_init__(self) -> None:
        require_mode(self.craft_mode)
        require_least("steps", self.steps, 0)
        require_least("step", self.step, 0)

    def find(self, model: Model, lesson: Lesson) -> Found:
        """See `Craft.find`."""
        region, point = lesson.region, self.start(lesson)
        with asking(model, self.craft_mode):
            clean = model.logits(lesson.x) if self.deviates else None
            objective: Objective = CrossEntropy() if clean is None else Custom(_divergence_from(clean))
            for _ in range(self.steps):
                _, slope = model.slope(point, lesson.y, objective)
                point = self._moved(region, point, slope)
        if not self.steps:
            point = widened(region, self.reach).project(point)
        return Found(point=point, forwards=self.steps + self.deviates, backwards=self.steps)

    def _moved(self, region: Region, point: Tensor, slope: Tensor) -> Tensor:
        if self.reach > 1:
            return region.push(point, slope, self.step, reach=self.reach)
        return region.ascend(point, slope, self.step)


@final
@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform in `noise` times the budget, then the nearest point inside the box."""

    noise: float = 1.0

    def __post_init__(self) -> None:
        require_least("noise", self.noise, 0)

    def __call__(self, lesson: Lesson) -> Tensor:
        """Return the start of each example."""
        if not self.noise:
            return lesson.x
        return widened(lesson.region, self.noise).noise(lesson.stream, NOISE)


@final
@dataclass(frozen=True, slots=True)
class Nudged:
    """x + σ·N(0, 1) in data units, inside the region: at x itself a divergence from x has no slope."""

    sigma: float = 1e-3

    def __call__(self, lesson: Lesson) -> Tensor:
        """Return the start of each example."""
        return lesson.region.project(_normal(lesson, self.sigma))


def widened(region: Region, factor: float) -> Region:
    """Return the region of a multiple of the budget; of the budget itself the one that has its bounds already."""
    return region if factor == 1 else region.scaled(factor)


def divergence(outputs: Tensor, clean: Tensor) -> Tensor:
    """Return KL(p ‖ p′) of each example, p the probabilities at x, p′ those of `outputs`, [N]."""
    wanted = log_softmax(clean, 1)
    return (wanted.exp() * (wanted - log_softmax(outputs, 1))).sum(1)


def _divergence_from(clean: Tensor) -> Callable[[Tensor, object], Tensor]:
    return lambda outputs, _: divergence(outputs, clean)


def _normal(lesson: Lesson, sigma: float) -> Tensor:
    x = lesson.x
    drawn = lesson.stream.normal(NOISE, tuple(x.shape[1:])).to(x.dtype)
    return torch.add(x, drawn, alpha=sigma)
