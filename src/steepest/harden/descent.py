"""The one place where a loss is differentiated with respect to the weights, and where the optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor, nn

from steepest.harden.contract import Classroom


@final
@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number on its way to the host: on a GPU known as soon as it is computed, whatever was asked for afterwards."""

    value: Tensor
    known: torch.cuda.Event | None

    @classmethod
    def of(cls, value: Tensor) -> Self:
        """Send a number of one entry."""
        plain = value.detach()
        if not plain.is_cuda:
            return cls(plain, None)
        plain, known = plain.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        known.record(torch.cuda.current_stream(value.device))
        return cls(plain, known)

    def read(self) -> float:
        """Return it; on a GPU wait for it, and for nothing later."""
        if self.known is not None:
            self.known.synchronize()
        return float(self.value)


def differentiate(room: Classroom, loss: Tensor) -> float:
    """Replace the gradients of all parameters by those of `loss`, and return its value."""
    value = Number.of(loss)
    room.optimiser.zero_grad(set_to_none=True)
    room.backward(loss)
    return value.read()


def advance(room: Classroom, value: float) -> bool:
    """Let the optimiser step, unless the loss is not finite: then no weight and no moment changes."""
    if math.isfinite(value):
        room.optimiser.step()
        return True
    room.optimiser.zero_grad(set_to_none=True)
    return False


@contextmanager
def spared(network: nn.Module) -> Iterator[None]:
    """Let forwards on the graph change copies of the buffers: batch-norm statistics are afterwards as they were."""
    kept = [
        (part, name, buffer)
        for part in network.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    try:
        # Others in their place, since a graph may still need the ones that it met.
        for part, name, buffer in kept:
            part._buffers[name] = buffer.clone()
        yield
    finally:
        for part, name, buffer in kept:
            part._buffers[name] = buffer


@final
@dataclass(frozen=True, slots=True)
class WorstWeights:
    """The weights moved by γ‖w‖ along the gradient of the loss, every tensor with more than one axis for itself.

    Biases and the vectors of normalisation stay. The gradient is that of the batch at hand, which is what one step of
    plain SGD on a copy of the network would give.

    Source: Wu, Xia & Wang 2020.
    """

    gamma: float

    @contextmanager
    def moved(self, room: Classroom, loss: Callable[[], Tensor]) -> Iterator[None]:
        """Move the weights, and put copies of the old ones back at the end, bit by bit."""
        with spared(room.network):
            differentiate(room, loss())
        saved = []
        try:
            with torch.no_grad():
                for weight in room.network.parameters():
                    if weight.ndim > 1 and weight.grad is not None:
                        saved.append((weight, weight.clone()))
                        weight.add_(move(weight, weight.grad, self.gamma))
            yield
        finally:
            with torch.no_grad():
                for weight, old in saved:
                    weight.copy_(old)


def move(weight: Tensor, slope: Tensor, gamma: float) -> Tensor:
    """Return γ‖w‖·g/‖g‖; nothing where g is zero or not finite."""
    size = slope.norm()
    usable = (size > 0) & (size < torch.inf)
    return torch.where(usable, slope * (gamma * weight.norm() / size), 0)
