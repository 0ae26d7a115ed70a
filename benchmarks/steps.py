"""A step of every training method against the passes that it counts, and against the same method written out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import images, preact_resnet18, small_cnn, small_resnet
from benchmarks.timing import Contender, Times, in_turns, rounds_of
from steepest.harden.library import METHODS

EPSILON = 8 / 255
TARGET = 1.05
COUNT, BATCH, TURN = 12_800, 128, 2
"""Examples to learn from, those of a batch, and the steps that a contender makes at its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What a step of a method asks of the network.

    Attributes:
        call: of the method, with few steps where their number is free.
        forwards: without a graph.
        slopes: gradients of the input alone, a forward and a backward without those of the parameters.
        trainings: forwards and backwards with the gradients of the parameters; the optimiser steps after the last.
        steps: whether it steps after each of them.
        shared: the training pass holds x beside the points, twice the batch.
        both: the training pass also gives the gradient of the input.
        turns: gradients of gradients: a forward and three backwards.
        settled: points are crafted in evaluation mode.
    """

    call: str
    forwards: int = 0
    slopes: int = 0
    trainings: int = 1
    steps: bool = False
    shared: bool = False
    both: bool = False
    turns: int = 0
    settled: bool = False

    def shown(self) -> str:
        parts = (
            (self.forwards, "F"),
            (self.slopes, "input gradient"),
            (self.turns, "gradient of a gradient"),
            (self.trainings, "training pass of x and points" if self.shared else "training pass"),
        )
        return " + ".join(f"{count} {name}" for count, name in parts if count)


PASSES = {
    "plain": Passes(call="plain"),
    "noise": Passes(call="noise"),
    "fgsm": Passes(call="fgsm", slopes=1),
    "fgsm-rs": Passes(call="fgsm-rs", slopes=1),
    "n-fgsm": Passes(call="n-fgsm", slopes=1),
    "pgd": Passes(call="pgd(steps=2)", slopes=2),
    "free": Passes(call="free(replays=2)", trainings=2, steps=True, both=True),
    "grad-align": Passes(call="grad-align", slopes=1, turns=1),
    "trades": Passes(call="trades(steps=2)", forwards=1, slopes=2, shared=True, settled=True),
    "mart": Passes(call="mart(steps=2)", slopes=2, shared=True, settled=True),
    "awp": Passes(call="awp(method='pgd(steps=2)')", slopes=2, trainings=2),
}
"""Of every method but ibp and crown-ibp, whose passes are of bounds: no plain loop has the like."""


def steps(effort: float = 1.0) -> Result:
    """Processor time of a step of `st.hardening` over that of the same passes, and of the same method, in PyTorch."""
    missing = set(METHODS.names()) - set(PASSES) - {"ibp", "crown-ibp"}
    assert not missing, f"no passes are written down for {missing}"
    cases = [
        _Case(f"small CNN, batch {BATCH}", small_cnn, (1, 28, 28), rounds_of(31, effort)),
        _Case(f"small ResNet, batch {BATCH}", small_resnet, (3, 32, 32), rounds_of(11, effort)),
    ]
    if torch.cuda.is_available():
        name = f"PreAct-ResNet-18 in bf16, batch {BATCH}, {torch.cuda.get_device_name()}"
        cases.append(_OnGPU(name, preact_resnet18, (3, 32, 32), rounds_of(31, effort)))
    return Result(
        title="A step of training against its passes",
        note=f"Seconds of the processor (`time.process_time`) for {TURN} steps of `st.hardening`, over those of a "
        f"plain PyTorch loop with the same passes at x: the batch out of memory, input gradients by "
        "`torch.autograd.grad`, forwards and backwards with the gradients of the parameters, SGD with momentum and "
        f"weight decay. {COUNT:,} examples, L∞ 8/255, no watch, nothing held out, networks in training mode. What "
        "is beyond 1 is noise, moves, bounds, the order of the examples, accuracy and records. 'written out' is the "
        "method as its users write it, with float32 noise and clamps. ibp and crown-ibp are left out: their passes "
        "are of bounds, through every layer by its own rule, and a plain loop has no such pass to compare with. On a "
        "GPU, where there is one, seconds are of the clock, channels come last in memory, and only the methods "
        "written out are compared.",
        rows=tuple(row for case in cases for row in case.rows()),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    rounds: int

    def rows(self) -> list[Row]:
        x, y = images(COUNT, *self.shape), torch.arange(COUNT) % 10
        return [row for name in PASSES for row in self._rows(name, x, y)]

    def _rows(self, name: str, x: Tensor, y: Tensor) -> list[Row]:
        passes = PASSES[name]
        contenders: dict[str, Contender] = {
            passes.call: _ours(passes.call, self.network(), x, y),
            passes.shown(): _Plain(self.network(), x, y, lambda plain, *batch: plain.passes(passes, *batch)),
        }
        if name in WRITTEN:
            contenders["written out"] = _Plain(self.network(), x, y, WRITTEN[name])
        times = in_turns(contenders, self.rounds, time.process_time)
        return [self.row(times, passes.call, against, TARGET) for against in list(contenders)[1:]]

    def row(self, times: Times, call: str, against: str, target: float) -> Row:
        """Return how much longer ours took."""
        value, spread = times.ratio(call, against)
        return Row(what=f"{call}, {self.name}", against=against, value=value, target=target, spread=spread)


class _OnGPU(_Case):
    """The methods written out, and nothing else; one call of a contender ends when the GPU has done its work."""

    place = "cuda"

    def _rows(self, name: str, x: Tensor, y: Tensor) -> list[Row]:
        if name not in WRITTEN:
            return []
        call, place = PASSES[name].call, self.place
        ours = _ours(call, self.network().to(place), x, y, precision="bf16", channels_last=True)
        net = self.network().to(place, memory_format=torch.channels_last)
        contenders = {call: _awaited(ours), "written out": _awaited(_Plain(_Halved(net), x, y, WRITTEN[name]))}
        times = in_turns(contenders, self.rounds)
        rate = TURN * BATCH / statistics.median(times.seconds[call])
        return [
            self.row(times, call, "written out", 1.0),
            Row(what=f"{call}, {self.name}", against="the clock", value=rate, unit="images/s"),
        ]


class _Halved(nn.Module):
    """A network under autocast, asked with channels last."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            found: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return found.float()


def _ours(call: str, net: nn.Module, x: Tensor, y: Tensor, **more: Any) -> Contender:
    course: dict[str, Any] = {"epochs": 1000, "batch_size": BATCH, "lr": 1e-3, "held_out": 0.0, "watch": None, **more}
    loop = st.hardening(net.train(), (x, y), st.Linf(EPSILON), method=call, **course)
    return lambda: [next(loop) for _ in range(TURN)]


def _awaited(work: Contender) -> Contender:
    def done() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return done


class _Plain:
    """A plain training loop: one call is one turn."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor, step: Callable[[_Plain, Tensor, Tensor], object]) -> None:
        self.net, self._x, self._y, self._step = net.train(), x, y, step
        self._optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self._place = next(net.parameters()).device
        self._order, self._at = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)), 0

    def __call__(self) -> None:
        for _ in range(TURN):
            ids = self._order[self._at : self._at + BATCH]
            self._at = (self._at + BATCH) % len(self._x)
            self._step(self, self._x[ids].to(self._place), self._y[ids].to(self._place))

    def passes(self, asked: Passes, x: Tensor, y: Tensor) -> None:
        """Make the passes of a method, all of them at x."""
        self.net.train(not asked.settled)
        for _ in range(asked.forwards):
            with torch.no_grad():
                self.net(x)
        for _ in range(asked.slopes):
            slope = self.slope(x, y)
        self.net.train()
        for _ in range(asked.turns):
            # The penalty's passes hang on the graph of the training pass: both are differentiated at once.
            self._descend(self._loss(asked, x, y) + self._turned(x, y, slope))
            return
        for number in range(asked.trainings):
            loss = self._loss(asked, x.detach().requires_grad_() if asked.both else x, y)
            self._descend(loss, step=asked.steps or number == asked.trainings - 1)

    def train(self, x: Tensor, y: Tensor) -> None:
        """Make a training pass and a step."""
        self._descend(cross_entropy(self.net(x), y))

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of the loss at x."""
        point = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(cross_entropy(self.net(point), y, reduction="sum"), point)
        return found

    def _loss(self, asked: Passes, x: Tensor, y: Tensor) -> Tensor:
        return (
            cross_entropy(self.net(torch.cat([x, x])), torch.cat([y, y]))
            if asked.shared
            else cross_entropy(self.net(x), y)
        )

    def _turned(self, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        point = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(cross_entropy(self.net(point), y, reduction="sum"), point, create_graph=True)
        return 1 - (normalize(found.flatten(1)) * normalize(slope.flatten(1))).sum(1).mean()

    def _descend(self, loss: Tensor, *, step: bool = True) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if step:
            self._optimiser.step()


def _fgsm(plain: _Plain, x: Tensor, y: Tensor) -> None:
    plain.train((x + EPSILON * plain.slope(x, y).sign()).clamp(0, 1), y)


def _fgsm_rs(plain: _Plain, x: Tensor, y: Tensor) -> None:
    delta = torch.empty_like(x).uniform_(-EPSILON, EPSILON)
    delta = (x + delta).clamp(0, 1) - x
    delta = (delta + 1.25 * EPSILON * plain.slope(x + delta, y).sign()).clamp(-EPSILON, EPSILON)
    plain.train((x + delta).clamp(0, 1), y)


def _n_fgsm(plain: _Plain, x: Tensor, y: Tensor) -> None:
    point = (x + torch.empty_like(x).uniform_(-2 * EPSILON, 2 * EPSILON)).clamp(0, 1)
    plain.train((point + EPSILON * plain.slope(point, y).sign()).clamp(0, 1), y)


def _pgd(plain: _Plain, x: Tensor, y: Tensor) -> None:
    delta = torch.empty_like(x).uniform_(-EPSILON, EPSILON)
    delta = (x + delta).clamp(0, 1) - x
    for _ in range(2):
        delta = (delta + 0.25 * EPSILON * plain.slope(x + delta, y).sign()).clamp(-EPSILON, EPSILON)
        delta = (x + delta).clamp(0, 1) - x
    plain.train(x + delta, y)


WRITTEN: dict[str, Callable[[_Plain, Tensor, Tensor], None]] = {
    "fgsm": _fgsm,
    "fgsm-rs": _fgsm_rs,
    "n-fgsm": _n_fgsm,
    "pgd": _pgd,
}
"""The methods of one and two steps as their users write them."""
