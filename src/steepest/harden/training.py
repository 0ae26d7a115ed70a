"""A training in one call: checkpoints, progress, and what remains at its end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress, Silent, Tracker
from steepest.basis.version import VERSION
from steepest.harden.course import Course
from steepest.harden.examples import Examples
from steepest.harden.folder import START, Folder
from steepest.harden.loop import Hardening, Measure
from steepest.harden.moment import tensors_of
from steepest.harden.records import Epoch, Seen, Step
from steepest.harden.team import Alone, Team
from steepest.harden.watch import Watch
from steepest.models.model import Model

_SAVED = 120.0
"""Seconds between two checkpoints inside an epoch."""

_TOLD = 50
"""Trackers hear of every so many steps."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hardened:
    """A finished training.

    Attributes:
        network: the module that was given, with the weights of the best epoch, in evaluation mode.
        epochs: one record each; those that a return undid are gone.
        seen: what was seen on the way, and what was done about it.
        best_epoch: whose weights these are: the most robust on held-out examples, else the last; −1: the first ones.
        stopped: why training ended early; "" if it did not.
        held_out: ids of the examples that were not trained on.
        folder: with the checkpoint; None where nothing was written.

    >>> import torch, steepest as st
    >>> x, net = torch.rand(64, 4, generator=torch.Generator().manual_seed(0)), nn.Linear(4, 2)
    >>> found = st.harden(net, (x, (x[:, 0] > 0.5).long()), st.Linf(0.05), epochs=2, batch_size=16)
    >>> len(found.epochs), net.training
    (2, False)
    """

    network: nn.Module
    epochs: tuple[Epoch, ...]
    seen: tuple[Seen, ...]
    best_epoch: int
    stopped: str
    method: str
    held_out: Tensor
    folder: Path | None

    @property
    def robust_accuracy(self) -> float | None:
        """Share of held-out examples that PGD with 10 steps left right in the best epoch; None if not measured.

        Weights were chosen by it, so an audit on other examples is the number to report.
        """
        found = [epoch.held for epoch in self.epochs if epoch.epoch == self.best_epoch]
        return found[0].robust if found and found[0] is not None else None

    def to_record(self) -> dict[str, Any]:
        """Return plain containers and numbers: the whole history."""
        return {
            "method": self.method,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "held_out": len(self.held_out),
            "robust_accuracy": self.robust_accuracy,
            "epochs": [epoch.to_record() for epoch in self.epochs],
            "seen": [seen.to_record() for seen in self.seen],
        }


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that a training in one call was asked for; see `api.harden`."""

    model: Model
    data: Examples
    course: Course
    watch: Watch | None
    measured: tuple[Measure | None, int]
    devices: int
    folder: Path | None
    name: str | None

    def loop(self, team: Team) -> Hardening:
        """Return its loop, at the beginning."""
        return Hardening(
            self.model,
            self.data,
            self.course,
            watch=self.watch,
            measure=self.measured[0],
            every=self.measured[1],
            team=team,
        )

    def asked(self) -> dict[str, str]:
        """Return what its weights depend on, in words."""
        network = self.model.network
        assert isinstance(network, nn.Module)
        shapes = [f"{key}{tuple(value.shape)}" for key, value in network.state_dict().items()]
        structure = hashlib.sha256(f"{network!r}{shapes}".encode()).hexdigest()[:16]
        return {
            "model": self.name or type(network).__name__,
            "layers": structure,
            "data": self.data.sha256(),
            **self.course.record(),
            "box": repr(self.model.box),
            "watch": _described(self.watch),
            "every": str(self.measured[1]),
            "devices": str(self.devices),
            "steepest": VERSION,
        }


def _described(watch: Watch | None) -> str:
    """Its class and its plain settings: a text that is the same in another process."""
    if watch is None:
        return "none"
    held = {name: value for name, value in vars(watch).items() if not name.startswith("_")}
    plain = [f"{name}={value!r}" for name, value in held.items() if isinstance(value, str | int | float | None)]
    return f"{type(watch).__qualname__}({', '.join(plain)})"


def trained(training: Training, progress: Progress, trackers: Sequence[Tracker]) -> Hardened:
    """Train, or go on, and return what remains; raises as `api.harden`."""
    if training.devices == 1:
        loop = _run(Alone(), training, progress, trackers)
    else:
        if training.devices < 1 or training.folder is None:
            raise UsageError(
                f"devices={training.devices} with out={training.folder}: give at least 1, and a folder through which "
                "several processes hand over what they trained."
            )
        from steepest.harden.several import launch

        launch(training.devices, partial(_run, training=training, progress=progress, trackers=trackers))
        loop = training.loop(Alone())
        state = Folder(training.folder).state()
        assert state is not None
        loop.restore(state)
    loop.conclude()
    return Hardened(
        network=loop.network,
        epochs=tuple(loop.epochs),
        seen=tuple(loop.seen),
        best_epoch=loop.best_epoch,
        stopped=loop.stopped,
        method=loop.method,
        held_out=loop.held_out,
        folder=training.folder,
    )


def _run(team: Team, training: Training, progress: Progress, trackers: Sequence[Tracker]) -> Hardening:
    """Make all steps in this process; the first of a team writes and tells."""
    loop = training.loop(team)
    folder = None if training.folder is None else Folder(training.folder)
    asked = training.asked()
    if folder is not None:
        if team.first:
            folder.claim(asked)
        team.told(None)
        state = folder.state()
        begun = folder.start()
        if begun is None:
            if team.first:
                folder.write_weights(START, tensors_of(loop.network))
        elif state is None:
            # Stopped before its first checkpoint: a factory may draw other weights each time.
            loop.begin(begun)
        if state is not None:
            loop.restore(state)
            if team.first:
                progress.say(f"continuing after {loop.number} of {loop.total} steps")
    if not team.first:
        for _ in loop:
            continue
        return loop
    board = _Board(loop, progress, trackers)
    board.begin(asked)
    try:
        _steps(loop, board, folder)
    finally:
        board.end()
    return loop


def _steps(loop: Hardening, board: _Board, folder: Folder | None) -> None:
    saved = time.monotonic()
    for step in loop:
        board.tell(step)
        closed = bool(loop.epochs) and loop.epochs[-1].steps == loop.number
        if folder is not None and (closed or loop.ended or time.monotonic() - saved >= _SAVED):
            folder.keep(loop.state())
            saved = time.monotonic()


@final
@dataclass(slots=True)
class _Board:
    """Says of a training what happens."""

    loop: Hardening
    progress: Progress = field(default_factory=Silent)
    trackers: Sequence[Tracker] = ()
    _said: int = 0

    def begin(self, asked: Mapping[str, str]) -> None:
        loop = self.loop
        self._said = len(loop.seen)
        self.progress.begin("hardening", loop.total)
        self.progress.advance(loop.number)
        for tracker in self.trackers:
            tracker.begin(f"{asked['model']} {loop.method}", asked)

    def tell(self, step: Step) -> None:
        loop = self.loop
        self.progress.advance(loop.number - step.number, self._note(step))
        for seen in loop.seen[self._said :]:
            self.progress.say(f"{seen.sign.name}: {seen.sign.says}; {seen.done}")
        self._said = len(loop.seen)
        numbers = {} if step.number % _TOLD and step.held is None else _numbers(step)
        if step.held is not None:
            numbers |= loop.epochs[-1].numbers
        for tracker in self.trackers if numbers else ():
            tracker.log(step.number + 1, numbers)

    def end(self) -> None:
        self.progress.end()
        for tracker in self.trackers:
            tracker.end()

    def _note(self, step: Step) -> str:
        last = next((each.held for each in reversed(self.loop.epochs) if each.held is not None), None)
        found = f"epoch {step.epoch + 1} of {self.loop.course.epochs}, loss {step.loss:.3g}, "
        found += f"robust {100 * step.robust:.0f} % in training"
        return found if last is None else f"{found}, {100 * last.robust:.1f} % held out"


def _numbers(step: Step) -> dict[str, float]:
    found = {"loss": step.loss, "robust": step.robust, "lr": step.lr}
    if step.clean is not None:
        found["clean"] = step.clean
    if step.held is not None:
        found |= {"held out/clean": step.held.clean, "held out/robust": step.held.robust}
    return found
