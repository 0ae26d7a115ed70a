"""A task on which training on FGSM's points from x collapses, and a loop of one's own that shows it.

Images [1, 16, 16] of four smooth patterns, each with smooth noise of its own; 300 of them to learn from; a budget of
0.14 in L∞; two wide convolutions with ReLU. FGSM finds less and less of what two half steps find, until the network
knows the corners that FGSM goes to and nothing between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import steepest as st
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.harden.contract import Classroom, Lesson
from steepest.harden.library import METHODS
from steepest.harden.sentinel import Sentinel
from steepest.harden.watch import Answer, Sign

SIDE, CLASSES, EPSILON = 16, 4, 0.14
BATCH, STEPS, RISE, RATE = 64, 480, 180, 0.01
"""The learning rate rises to RATE over the first RISE steps, and stays there."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Images and classes to learn from, and held out."""

    x: Tensor
    y: Tensor
    x_held: Tensor
    y_held: Tensor


@dataclass(frozen=True, kw_only=True)
class Point:
    """What the network is worth after `step` steps: shares of right answers on held-out images."""

    step: int
    clean: float
    fgsm: float
    pgd: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training, looked at every so many steps; `signs` are those that were obeyed."""

    points: list[Point]
    signs: list[tuple[int, Sign]]
    network: nn.Module

    @property
    def best(self) -> float:
        """The best accuracy under PGD on the way."""
        return max(point.pgd for point in self.points)

    @property
    def end(self) -> Point:
        """The last point."""
        return self.points[-1]


def task(seed: int, count: int = 300, held: int = 256) -> Task:
    """Draw patterns and images."""
    gen = torch.Generator().manual_seed(seed)
    patterns = _smooth(CLASSES, gen)
    y = torch.randint(0, CLASSES, (count + held,), generator=gen)
    fine = 0.02 * torch.randn(count + held, 1, SIDE, SIDE, generator=gen)
    x = (0.5 + 0.15 * patterns[y] + 0.1 * _smooth(count + held, gen) + fine).clamp(0, 1)
    return Task(x=x[:count], y=y[:count], x_held=x[count:], y_held=y[count:])


def _smooth(count: int, gen: torch.Generator) -> Tensor:
    """`count` smooth images whose values have mean square 1."""
    coarse = torch.randn(count, 1, 4, 4, generator=gen)
    fine: Tensor = interpolate(coarse, size=SIDE, mode="bicubic", align_corners=False)
    size: Tensor = fine.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return fine * (SIDE / size)


def network(seed: int, width: int = 24) -> nn.Module:
    """Two convolutions and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * SIDE * SIDE // 4, CLASSES),
        )


def worth(model: st.Model, task: Task, step: int, count: int = 128) -> Point:
    """Accuracy at x, at FGSM's point, and after ten steps from a random start."""
    x, y = task.x_held[:count], task.y_held[:count]
    budget = st.Linf(EPSILON)
    jumped = st.fgsm(model, x, y, budget, objective="ce")
    found = st.attack("pgd(steps=10, step=0.25)", model, x, y, budget)
    shares = [float((model.logits(at).argmax(1) == y).double().mean()) for at in (x, jumped)]
    return Point(step=step, clean=shares[0], fgsm=shares[1], pgd=1 - float(found.won.double().mean()))


def trained(method: str, seed: int, *, sentinel: Sentinel | None = None, every: int = 40, steps: int = STEPS) -> Run:
    """Train by a method of the catalogue, in a loop of one's own, watched by a sentinel that may change the method."""
    data, net = task(seed), network(seed)
    model = st.Model(net)
    room = Classroom(network=net, model=model, optimiser=torch.optim.Adam(net.parameters(), lr=RATE))
    teacher, points, signs = METHODS.build(method), [], []
    draws = torch.Generator().manual_seed(seed)
    for number in range(steps):
        for group in room.optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (number + 1) / RISE)
        rows = torch.randint(0, len(data.y), (BATCH,), generator=draws)
        lesson = Lesson(
            region=Region(st.Linf(EPSILON), model.box, data.x[rows]),
            y=data.y[rows],
            stream=Stream.of(seed, rows).split(number),
            number=number,
            share=number / steps,
        )
        taught = teacher.teach(room, lesson)
        sign = None if sentinel is None else sentinel.look(room, lesson, taught)
        if sign is not None and sentinel is not None:
            signs.append((number, sign))
            if sign.answer is Answer.STOP:
                break
            sentinel.roll_back(room)
            assert sign.method is not None
            teacher = METHODS.build(sign.method)
        if (number + 1) % every == 0:
            points.append(worth(model, data, number + 1))
    return Run(points=points, signs=signs, network=net)
