"""What is asked of a training: everything that its weights depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import final

from steepest.basis.errors import UsageError, unknown
from steepest.basis.fingerprints import describe
from steepest.budgets.contract import Budget
from steepest.harden.examples import AUGMENTS

SCHEDULES = ("cyclic", "piecewise", "constant")
PRECISIONS = ("float32", "bf16")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is asked of a training; equal courses on equal data from equal weights end in equal weights.

    Attributes:
        method: a call of the catalogue.
        lr: the largest learning rate.
        schedule: "cyclic": up to lr in a straight line until half of the steps, then down to 0 (Wong, Rice & Kolter
            2020); "piecewise": a tenth from half of the steps on, a hundredth from three quarters on (Rice, Wong &
            Kolter 2020); "constant".
        momentum, weight_decay: of stochastic gradient descent.
        held_out: share of the examples that are not trained on; after each epoch they choose the best weights.
        patience: epochs without a better held-out robust accuracy until training ends; None: never.
        augment: "none" or "crop-flip".
        precision: of the training forward: "float32" or "bf16", by autocast.
        remedies: methods that take over, in this order, when a watch asks for a return.
        ema: decay of the average of the weights that is judged and kept; None: the weights themselves.
        swa: share of the training from which on the weights at epoch ends are averaged; None: never.

    Raises:
        UsageError: a value is out of its range; names it.
    """

    budget: Budget
    method: str
    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.2
    schedule: str = "cyclic"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    held_out: float = 0.1
    patience: int | None = None
    augment: str = "none"
    precision: str = "float32"
    channels_last: bool = False
    remedies: tuple[str, ...] = ()
    ema: float | None = None
    swa: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("schedule", SCHEDULES), ("augment", AUGMENTS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)
        whole = {"epochs": self.epochs, "batch_size": self.batch_size, "patience": self.patience}
        for name, number in whole.items():
            if number is not None and number < 1:
                raise UsageError(f"{name}={number} is not allowed: give a whole number of at least 1.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"lr={self.lr} is not allowed: give a positive number, e.g. 0.1.")
        shares = {"momentum": self.momentum, "held_out": self.held_out, "ema": self.ema, "swa": self.swa}
        for name, share in shares.items():
            if share is not None and not 0 <= share < 1:
                raise UsageError(f"{name}={share} is not allowed: give a number from 0 to below 1.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"weight_decay={self.weight_decay} is not allowed: give a number of at least 0.")
        if self.ema is not None and self.swa is not None:
            raise UsageError(f"ema={self.ema} and swa={self.swa} are two averages of the weights: give one of them.")

    def rate(self, share: float) -> float:
        """Return the learning rate after a share of the training.

        >>> from steepest.budgets.linf import Linf
        >>> course = Course(budget=Linf(0.1), method="fgsm", lr=0.2)
        >>> course.rate(0.0), course.rate(0.25), course.rate(0.5), course.rate(1.0)
        (0.0, 0.1, 0.2, 0.0)
        """
        if self.schedule == "cyclic":
            return self.lr * (2 * share if share < 0.5 else 2 - 2 * share)
        if self.schedule == "piecewise":
            return self.lr * (1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
        return self.lr

    def record(self) -> dict[str, str]:
        """Return every part in words that are equal exactly when the parts are."""
        return {field.name: describe(getattr(self, field.name)) for field in fields(self)}


def differences(asked: Mapping[str, str], held: Mapping[str, str]) -> list[str]:
    """Return what differs between two records, e.g. "epochs was 10, is 20"."""
    names = [name for name in {**held, **asked} if asked.get(name) != held.get(name)]
    return [f"{name} was {_brief(held.get(name))}, is {_brief(asked.get(name))}" for name in names]


def _brief(text: str | None) -> str:
    return "not recorded" if text is None else text if len(text) <= 60 else f"{text[:57]}…"
