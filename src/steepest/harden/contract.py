"""What a training method is given at each step, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor, nn

from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.models.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One batch, and where its training points may lie.

    Attributes:
        region: the budget around x [N, *features], inside the box.
        y: int64 [N].
        stream: random numbers of the examples, of this step alone.
        number: of the step, from 0.
        share: of the training that lies behind, from 0 to 1.
    """

    region: Region
    y: Tensor
    stream: Stream
    number: int
    share: float

    @property
    def x(self) -> Tensor:
        """The clean inputs."""
        return self.region.x


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What one step was like.

    Attributes:
        loss: that was descended, the mean over the batch.
        point: the training points, [N, *features], detached.
        outputs: of the network at them, while training, [N, K], detached.
        clean: its outputs at x, where the method asked; None where it did not.
        forwards, backwards: passes over the batch.
    """

    loss: float
    point: Tensor
    outputs: Tensor
    clean: Tensor | None
    forwards: int
    backwards: int


@final
@dataclass(slots=True, kw_only=True)
class Classroom:
    """A network in training: what a method may do with it.

    Attributes:
        network: in the mode in which it is trained.
        model: the same network, behind the handle that asks for gradients of inputs and leaves no trace: buffers
            (batch-norm statistics) change only when `network` itself is called.
        optimiser: of the network's parameters.
        computing: the context of every forward, e.g. autocast.
        backward: takes the gradient of a loss with respect to the parameters; a launcher's own, where it has one.
        kept: tensors that a method carries from step to step; saved in checkpoints.
    """

    network: nn.Module
    model: Model
    optimiser: torch.optim.Optimizer
    computing: Callable[[], AbstractContextManager[object]] = nullcontext
    backward: Callable[[Tensor], object] = Tensor.backward
    kept: dict[str, Tensor] = field(default_factory=dict)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the network's outputs at x, on the graph, at least float32."""
        with self.computing():
            found: Tensor = self.network(x)
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


class Method(Protocol):
    """A way of training: how the training point is found, with what loss, regulariser and weight perturbation."""

    @property
    def call(self) -> str:
        """The catalogue's call that makes it again, with every argument."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The kinds of budget that it serves; none named: all."""

    def teach(self, room: Classroom, lesson: Lesson) -> Taught:
        """Make one step: find the points, descend, and let the optimiser step."""
