"""What is written down of a training, step by step and epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, final

from steepest.harden.watch import Answer, Sign


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the weights after an epoch are worth on the held-out examples.

    Attributes:
        clean, robust: shares of right answers, at x and at what PGD with 10 steps found.
        best: whether no earlier epoch was more robust.
    """

    clean: float
    robust: float
    best: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a training.

    Attributes:
        number, epoch: from 0.
        loss: that was descended.
        robust: share of right answers at the training points, while training.
        clean: share of right answers at x, where the method asked; else None.
        lr: learning rate of the step.
        forwards, backwards: passes over the batch.
        seconds: that the step took.
        method: the call of the method at work.
        sign: what was seen after the step, else None.
        held: at the end of an epoch with held-out examples, else None.
    """

    number: int
    epoch: int
    loss: float
    robust: float
    clean: float | None
    lr: float
    forwards: int
    backwards: int
    seconds: float
    method: str
    sign: Sign | None = None
    held: Held | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of a training, the mean over its steps; the fields are those of `Step`.

    Attributes:
        steps: behind its end.
        held: None without held-out examples.
        numbers: what else was measured after it, by name.
    """

    epoch: int
    steps: int
    loss: float
    robust: float
    clean: float | None
    lr: float
    forwards: int
    backwards: int
    seconds: float
    method: str
    held: Held | None
    numbers: Mapping[str, float]

    @staticmethod
    def of(steps: list[Step], numbers: Mapping[str, float]) -> Epoch:
        """Return the record of the epoch that these steps made."""
        last, count = steps[-1], len(steps)
        known = [step.clean for step in steps if step.clean is not None]
        return Epoch(
            epoch=last.epoch,
            steps=last.number + 1,
            loss=sum(step.loss for step in steps) / count,
            robust=sum(step.robust for step in steps) / count,
            clean=sum(known) / len(known) if known else None,
            lr=last.lr,
            forwards=sum(step.forwards for step in steps),
            backwards=sum(step.backwards for step in steps),
            seconds=sum(step.seconds for step in steps),
            method=last.method,
            held=last.held,
            numbers=dict(numbers),
        )

    def to_record(self) -> dict[str, Any]:
        """Return plain containers and numbers."""
        return {**asdict(self), "numbers": dict(self.numbers)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the epoch again."""
        held = record["held"]
        return cls(**{**record, "held": None if held is None else Held(**held)})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sign, when it was seen, and what was done.

    Attributes:
        step, epoch: after which it was seen.
        sign: what was seen.
        done: what followed, in words.
    """

    step: int
    epoch: int
    sign: Sign
    done: str

    def to_record(self) -> dict[str, Any]:
        """Return plain containers and numbers."""
        sign = self.sign
        return {
            "step": self.step,
            "epoch": self.epoch,
            "name": sign.name,
            "says": sign.says,
            "answer": sign.answer.value,
            "method": sign.method,
            "numbers": dict(sign.numbers),
            "done": self.done,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return what was seen again."""
        sign = Sign(
            name=record["name"],
            says=record["says"],
            answer=Answer(record["answer"]),
            method=record["method"],
            numbers=record["numbers"],
        )
        return cls(step=record["step"], epoch=record["epoch"], sign=sign, done=record["done"])


def impatient(best_epoch: int, patience: int) -> str:
    """Return what is written down where no epoch was better for so long."""
    return f"no epoch after epoch {best_epoch + 1} was more robust, and {_PATIENCE}{patience}"


def broke_off(stopped: str) -> bool:
    """Return whether a training ended for a fault, by what was written down; lost patience is none.

    >>> broke_off(""), broke_off(impatient(3, patience=5)), broke_off("the loss of step 7 is nan")
    (False, False, True)
    """
    return bool(stopped) and _PATIENCE not in stopped


_PATIENCE = "patience="
