"""The one training loop: batches in a fixed order, steps by a method, watched, judged and able to go back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from steepest.basis.errors import DataError, ModelError
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.course import Course
from steepest.harden.examples import Examples, shuffled, split, varied
from steepest.harden.judging import require_limits, worth
from steepest.harden.library import METHODS
from steepest.harden.moment import State, finite, kept_moment, put, put_moment, tensors_of
from steepest.harden.records import Epoch, Held, Seen, Step, impatient
from steepest.harden.shown import Shown
from steepest.harden.team import Alone, Team
from steepest.harden.watch import Answer, Sign, Watch
from steepest.models.model import Model
from steepest.models.state import reseed, untouched

Measure = Callable[[Classroom, Region, Tensor], Mapping[str, float]]
"""(room, region around at most 128 training examples, their labels) → numbers, by name."""

MOST_RETURNS = 3
SLOWER = 0.1
"""The learning rate after the loss was not finite, as a share of the one before."""

_DOUBT = 0.5
"""An epoch less robust than this share of the best is no place to return to."""
_MEASURED = 128


@final
class Hardening:
    """A training under way: iterating makes its steps; between two of them it may be looked at, kept and left.

    Attributes:
        network: in training; after the last step too: `best` holds the weights to use.
        number: of the next step.
        epochs, seen: what was written down so far.
        best: the weights and buffers of the most robust epoch by name, before the first one None.
        best_epoch: its number.
        stopped: why training ended before its last epoch; "" if it did not.
    """

    def __init__(
        self,
        model: Model,
        data: Examples,
        course: Course,
        *,
        watch: Watch | None = None,
        measure: Measure | None = None,
        every: int = 0,
        team: Team | None = None,
    ) -> None:
        assert isinstance(model.network, nn.Module)
        self.course, self.network, self.data, self._watch = course, model.network, data, watch
        self._model, self._team = model, team or Alone()
        self._measure, self._every = measure, every
        self._place = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        self._type = next((p.dtype for p in self.network.parameters()), torch.float32)
        self._ids, self._held = split(data.labels, course.held_out, course.seed)
        # Batch statistics of a single example are none.
        least = 2 * self._team.size
        self._batches = [rows for rows in torch.split(self._ids, course.batch_size) if len(rows) >= least]
        if not self._batches:
            raise DataError(
                f"{len(self._ids)} examples in batches of {course.batch_size} give no batch of at least {least}: give "
                "more examples, or a larger batch_size."
            )
        self.number, self.best_epoch, self.stopped = 0, -1, ""
        self.epochs: list[Epoch] = []
        self.seen: list[Seen] = []
        self.best: dict[str, Tensor] | None = None
        self._method, self._slower = METHODS.build(course.method), 1.0
        self._steps: list[Step] = []
        self._shown = Shown(self.network, course, self._inputs)
        self._order: tuple[int, tuple[Tensor, ...]] = (-1, ())
        self._prepare()
        self._return = self._moment()

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.course.epochs * len(self._batches)

    @property
    def method(self) -> str:
        """The call of the method at work."""
        return self._method.call

    @property
    def held_out(self) -> Tensor:
        """The ids of the examples that are not trained on, rising."""
        return self._held

    @property
    def ended(self) -> bool:
        """Whether there is no step left."""
        return bool(self.stopped) or self.number >= self.total

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Step:
        if self.ended:
            raise StopIteration
        begin = time.perf_counter()
        epoch, place = divmod(self.number, len(self._batches))
        share = (self.number + 0.5) / self.total
        rate = self.course.rate(share) * self._slower
        for group in self.room.optimiser.param_groups:
            group["lr"] = rate
        lesson = self._lesson(epoch, place, share)
        # Whatever the network draws, as dropout does, depends on the step alone.
        with untouched(None, seed=self._drawn()):
            taught = self._method.teach(self.room, lesson)
            seen = self._looked(lesson, taught) if self._team.first else None
        sign = self._team.told(seen)
        seconds = time.perf_counter() - begin
        step = replace(_step(taught, lesson, epoch, rate), seconds=seconds, method=self.method, sign=sign)
        self.number += 1
        self._steps.append(step)
        self._shown.stepped()
        if sign is not None and sign.answer is not Answer.GO_ON:
            self._obey(step, sign)
            return step
        if sign is not None:
            self._note(step, sign, "training went on")
        return self._closed(step) if place == len(self._batches) - 1 else step

    def state(self) -> State:
        """Return all that the rest of the training depends on: tensors and plain values."""
        return {
            **self._moment(),
            "return": self._return,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "epochs": [epoch.to_record() for epoch in self.epochs],
            "seen": [seen.to_record() for seen in self.seen],
            "steps": [_plain(step) for step in self._steps],
        }

    def restore(self, state: State) -> None:
        """Go on from where `state` was taken: the steps that follow are the same, bit for bit, on the same machine."""
        self._go_back(state)
        self._slower, self._return, self.best = state["slower"], state["return"], state["best"]
        self.best_epoch, self.stopped = state["best_epoch"], state["stopped"]
        self.epochs = [Epoch.from_record(record) for record in state["epochs"]]
        self.seen = [Seen.from_record(record) for record in state["seen"]]
        self._steps = [Step(**record) for record in state["steps"]]

    def begin(self, tensors: dict[str, Tensor]) -> None:
        """Begin with these parameters and buffers instead."""
        put(self.network, tensors)
        self._return = self._moment()

    def conclude(self) -> None:
        """Give the network its best weights, or those it can be trusted with, in evaluation mode."""
        put(self.network, self.best if self.best is not None else self._return["weights"])
        self.network.eval()

    def _prepare(self) -> None:
        course = self.course
        if not any(each.requires_grad for each in self.network.parameters()):
            raise ModelError(
                f"{self._model.facts.source} has no parameter that may be trained: give a network in PyTorch whose "
                "parameters require gradients (net.py:factory); exported files hold constants."
            )
        x = self._fetched(self._ids[:2])
        self._budget = course.budget.fitted((len(self.data), *x.shape[1:]))
        require_limits(self._budget.rows(self._ids[:1]), self._model, x[:1])
        if course.augment != "none":
            varied(x, self._ids[:2], course.seed, 0)
        classes = self._model.logits(x).shape[1]
        least, most = int(self.data.labels.min()), int(self.data.labels.max())
        if least < 0 or most >= classes:
            raise DataError(
                f"labels go from {least} to {most}, but the model has {classes} outputs: labels must be 0 … "
                f"{classes - 1}. Give the network {most + 1} outputs, or drop those examples."
            )
        if course.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train()
        plain = torch.optim.SGD(
            [each for each in self.network.parameters() if each.requires_grad],
            lr=course.lr,
            momentum=course.momentum,
            weight_decay=course.weight_decay,
        )
        trained, optimiser = self._team.joined(self.network, plain)
        self._place = next(self.network.parameters()).device
        self._region = Region(self._budget.rows(self._ids[:2]), self._model.box, x.to(self._place))
        self._streams = Stream.of(course.seed, torch.arange(len(self.data), device=self._place))
        room = Classroom(network=trained, model=self._model, optimiser=optimiser, backward=self._team.backward)
        if course.precision == "bf16":
            room.computing = partial(torch.autocast, self._place.type, torch.bfloat16)
        self.room = room

    def _fetched(self, ids: Tensor) -> Tensor:
        x = self._model.box.admit(self.data.fetch(ids), f"the data (example {int(ids[0])} and others)")
        return x.to(self._place, self._type)

    def _inputs(self) -> Iterator[Tensor]:
        for ids in self._batches:
            yield self._fetched(ids)

    def _lesson(self, epoch: int, place: int, share: float) -> Lesson:
        course = self.course
        ids = self._team.part(self._ordered(epoch)[place])
        x = self._fetched(ids)
        if course.augment != "none":
            x = varied(x, ids, course.seed, epoch)
        if course.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return Lesson(
            region=self._region.around(self._budget.rows(ids), x),
            y=self.data.labels[ids].to(self._place),
            stream=self._streams.rows(ids.to(self._place)).split(self.number),
            number=self.number,
            share=share,
        )

    def _ordered(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the batches of an epoch, drawn once for all of its steps: that takes as long as all examples do."""
        if self._order[0] != epoch:
            ids = shuffled(self._ids, self.course.seed, epoch)
            self._order = epoch, torch.split(ids, self.course.batch_size)
        return self._order[1]

    def _drawn(self) -> int:
        return (self.course.seed * 1_000_003 + self.number) % 2**63

    def _looked(self, lesson: Lesson, taught: Taught) -> Sign | None:
        """Return what is wrong with a step: its loss first, then what the watch sees, which draws for itself."""
        if not math.isfinite(taught.loss):
            return _broken(f"the loss of step {self.number + 1} is {taught.loss}")
        if self._watch is None:
            return None
        reseed(self._drawn())
        return self._watch.look(self.room, lesson, taught)

    def _obey(self, step: Step, sign: Sign) -> None:
        """Stop, or go back to the last good epoch end and go on from there in another way."""
        if sign.name == NOT_FINITE and self._slower == 1 and _finite(self._return):
            self._back(step, sign, f"at {SLOWER:g} of the learning rate", self.method)
            self._slower *= SLOWER
            return
        other = self._other(sign) if sign.answer is Answer.ROLL_BACK and sign.name != NOT_FINITE else None
        if other is None:
            self.stopped = sign.says
            self._note(step, sign, "training stopped")
            return
        self._back(step, sign, f"with {other}", other)
        self.room.kept.clear()
        self._return = self._moment()

    def _other(self, sign: Sign) -> str | None:
        """Return the method that takes over: the sign's, else the first remedy that was not at work yet; or None."""
        used = [seen.sign.method for seen in self.seen if seen.sign.answer is Answer.ROLL_BACK]
        if len(used) >= MOST_RETURNS:
            return None
        tried = {self.course.method, self.method, *used}
        named = [sign.method] if sign.method else list(self.course.remedies)
        calls = [METHODS.build(each).call for each in named]
        return next((call for call in calls if call not in tried), None)

    def _back(self, step: Step, sign: Sign, how: str, method: str) -> None:
        self._go_back(self._return)
        self._note(step, replace(sign, method=method), f"back to the start of epoch {self._at() + 1}, then {how}")
        self._method, self._steps = METHODS.build(method), []
        self.epochs = [epoch for epoch in self.epochs if epoch.steps <= self.number]

    def _at(self) -> int:
        return self.number // len(self._batches)

    def _note(self, step: Step, sign: Sign, done: str) -> None:
        self.seen.append(Seen(step=step.number, epoch=step.epoch, sign=sign, done=done))

    def _moment(self) -> State:
        more = {"method": self.method, "slower": self._slower, "shown": self._shown.state()}
        return kept_moment(self.room, self.network, number=self.number, more=more)

    def _go_back(self, state: State) -> None:
        put_moment(self.room, self.network, state)
        self._shown.restore(state["shown"])
        self.number, self._method = state["number"], METHODS.build(state["method"])

    def _closed(self, step: Step) -> Step:
        """Judge the weights at the end of an epoch, keep the best, and remember a good place to return to."""
        if not finite(self.network):
            sign = _broken(f"a weight is not finite after step {step.number + 1}")
            self._obey(step, sign)
            return replace(step, sign=sign)
        self._shown.closed(self.number / self.total)
        with self._shown.put():
            held, numbers = self._team.told(self._judged(step.epoch) if self._team.first else None)
            if held is None or held.best:
                self.best, self.best_epoch = tensors_of(self.network), step.epoch
        step = replace(step, held=held)
        self._steps[-1] = step
        self.epochs.append(Epoch.of(self._steps, numbers))
        self._steps = []
        most = max((each.held.robust for each in self.epochs if each.held), default=0.0)
        if held is None or held.robust >= _DOUBT * most:
            self._return = self._moment()
        patience = self.course.patience
        if patience is not None and held is not None and step.epoch - self.best_epoch >= patience:
            self.stopped = impatient(self.best_epoch, patience)
        return step

    def _judged(self, epoch: int) -> tuple[Held | None, Mapping[str, float]]:
        course, held, numbers = self.course, None, {}
        if len(self._held):
            x, y = self._fetched(self._held), self.data.labels[self._held].to(self._place)
            size = max(course.batch_size, _MEASURED)
            clean, robust = worth(self._model, x, y, self._budget.rows(self._held), seed=course.seed, size=size)
            better = all(each.held is None or robust > each.held.robust for each in self.epochs)
            held = Held(clean=clean, robust=robust, best=better)
        if self._measure is not None and self._every and (epoch + 1) % self._every == 0:
            ids = shuffled(self._ids, course.seed, epoch)[:_MEASURED]
            region = Region(self._budget.rows(ids), self._model.box, self._fetched(ids))
            with untouched(None, seed=self._drawn()):
                numbers = dict(self._measure(self.room, region, self.data.labels[ids].to(self._place)))
        return held, numbers


NOT_FINITE = "not finite"
"""The name of the loop's own alarm."""


def _broken(says: str) -> Sign:
    return Sign(name=NOT_FINITE, says=says, answer=Answer.ROLL_BACK)


def _finite(state: State) -> bool:
    return all(bool(torch.isfinite(each).all()) for each in state["weights"].values() if each.is_floating_point())


def _step(taught: Taught, lesson: Lesson, epoch: int, rate: float) -> Step:
    return Step(
        number=lesson.number,
        epoch=epoch,
        loss=taught.loss,
        robust=_right(taught.outputs, lesson.y),
        clean=None if taught.clean is None else _right(taught.clean, lesson.y),
        lr=rate,
        forwards=taught.forwards,
        backwards=taught.backwards,
        seconds=0.0,
        method="",
    )


def _right(outputs: Tensor, y: Tensor) -> float:
    return int((outputs.argmax(1) == y).sum()) / len(y)


def _plain(step: Step) -> dict[str, Any]:
    """The fields of a step inside an epoch, which the epoch's mean is made of."""
    names = ("number", "epoch", "loss", "robust", "clean", "lr", "forwards", "backwards", "seconds", "method")
    return {name: getattr(step, name) for name in names}
