"""A watch for catastrophic overfitting: training that learns where FGSM looks, and nothing beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat, inner
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.moment import State, kept_moment, put_moment
from steepest.harden.watch import Answer, Sign
from steepest.landscape.gradients import participation
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import CrossEntropy

KEPT = "watch.sentinel"
"""Where the sentinel remembers: eight numbers, saved with every checkpoint."""

GAP, TURN, LEAD, CARRIED = "gap", "alignment", "lead", "participation"
"""What a look measures: FGSM's accuracy above PGD-2's, cos(∇(x), ∇(x + η)), FGSM's accuracy above that at x, and the
share of coordinates that carry ∇(x)."""
_PROBE = 11
_MEMORY = 0.8
"""Weight of the past in running levels: about the last five looks, or steps."""
_TURN = 0.75
_PASSES = 8
"""Of a look: five forwards and three backwards."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log: what was measured after a step, against what, and what followed.

    Attributes:
        step: number of the lesson.
        sign: "gap", "alignment", "lead" or "participation".
        value: what was measured, on how many `examples` of the batch.
        threshold: from where on it is suspicious; −∞ for participation, which is told and accuses nobody.
        action: "none", "looked again" (at twice as many), "rolled back" or "stopped".
    """

    step: int
    sign: str
    value: float
    threshold: float
    examples: int
    action: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a few examples say, in the mode of training: shares of right answers, and how their gradients are made."""

    clean: float
    fgsm: float
    pgd: float
    alignment: float
    participation: float

    def measured(self) -> dict[str, float]:
        """Return what the log tells, by name."""
        return {
            GAP: self.fgsm - self.pgd,
            TURN: self.alignment,
            LEAD: self.fgsm - self.clean,
            CARRIED: self.participation,
        }


@final
class Sentinel:
    """Watches a training on FGSM-like points, and asks for a return when it overfits to them.

    The loss at the training points costs nothing to see; where it falls suddenly, and else every `check_every` steps,
    `examples` of the batch are asked for three signs: FGSM's accuracy above that of two half steps (their worst point)
    by `gap` more than its running level; cos(∇L(x), ∇L(x + η)), η uniform in the budget, below ¾ of the highest that
    its running level was; FGSM's accuracy at least that at x. After one of the first two the next look comes as soon as
    it may. Two signs, or the first three times over, are a suspicion, which twice as many examples must confirm. The
    participation ratio of ∇L(x) is told beside them and accuses nobody: it falls in healthy trainings as it does in
    those that collapse later. A look is five forwards and three backwards over its examples, and is left out where all
    looks together would pass `share` of the training's passes; the second look of a suspicion never is.

    Args:
        remedy: the call of the method that takes over, e.g. "n-fgsm", "grad-align", "pgd(steps=2)"; "stop": none, the
            training ends; None: the loop's next remedy.
        check_every: steps between two looks.
        examples: of each batch, for a first look.
        share: of passes over examples, at most.
        gap: by which FGSM may look better than two half steps, above its running level.
        keep: keep the last good moment for `roll_back`, for loops that have nowhere to go back to; costs the memory of
            weights and optimiser once more.

    Attributes:
        log: every number of every look.

    Raises:
        UsageError: a number is out of its range.

    Source: signs after Wong, Rice & Kolter 2020, Andriushchenko & Flammarion 2020, Kim, Lee & Lee 2021; participation
    after Mehouachi & Jabari 2025; the rule is ours.

    >>> sentinel = Sentinel(remedy="n-fgsm")
    >>> sentinel.log
    []
    """

    def __init__(
        self,
        *,
        remedy: str | None = None,
        check_every: int = 40,
        examples: int = 32,
        share: float = 0.03,
        gap: float = 0.1,
        keep: bool = False,
    ) -> None:
        for name, number in {"check_every": check_every, "examples": examples}.items():
            if number < 1:
                raise UsageError(f"{name}={number} is not allowed: give a whole number of at least 1.")
        for name, part in {"share": share, "gap": gap}.items():
            if not 0 < part < 1:
                raise UsageError(f"{name}={part} is not allowed: give a number between 0 and 1.")
        self.remedy, self.check_every, self.examples, self.share, self.gap = remedy, check_every, examples, share, gap
        self.log: list[Entry] = []
        self._keep = keep
        self._good: State | None = None

    @property
    def good_step(self) -> int | None:
        """Number of the lesson after which the kept moment was taken; None where none is kept."""
        return None if self._good is None else int(self._good["number"])

    def look(self, room: Classroom, lesson: Lesson, taught: Taught) -> Sign | None:
        """Return what is wrong with the training after a step, or None; see `Watch.look`."""
        memory = _Memory.of(room)
        sudden = memory.heard(taught, len(lesson.y))
        few = min(self.examples, len(lesson.y))
        if not (sudden or lesson.number >= memory.due) or not memory.affords(few, self.share):
            memory.put(room)
            return None
        found, thresholds = self._looked(room, lesson, memory, few), self._thresholds(memory)
        gap, turned, _ = _crossed(found, thresholds)
        memory.due = lesson.number + (1 if gap or turned else self.check_every)
        sign = None
        if _suspicious(found, thresholds):
            self._write(lesson, found, thresholds, few, "looked again")
            few = min(2 * self.examples, len(lesson.y))
            found = self._looked(room, lesson, memory, few)
            if _suspicious(found, thresholds):
                sign = self._sign(lesson, found, thresholds)
        action = "none" if sign is None else "stopped" if sign.answer is Answer.STOP else "rolled back"
        self._write(lesson, found, thresholds, few, action)
        if not (gap or turned):
            memory.learn(found)
        memory.put(room)
        if sign is None and self._keep:
            self._good = kept_moment(room, room.network, number=lesson.number)
        return sign

    def roll_back(self, room: Classroom) -> int:
        """Bring weights, buffers and optimiser back to the last good moment, and return the number of its step.

        What method and sentinel had kept is forgotten: another method takes over.

        Raises:
            UsageError: no moment was kept.
        """
        if self._good is None:
            raise UsageError("no good moment is kept: make the Sentinel with keep=True, and let it look.")
        put_moment(room, room.network, self._good)
        room.kept.clear()
        return int(self._good["number"])

    def _looked(self, room: Classroom, lesson: Lesson, memory: _Memory, count: int) -> Look:
        memory.spent += _PASSES * count
        return look_at(room, lesson, count)

    def _thresholds(self, memory: _Memory) -> dict[str, float]:
        gap = 0.0 if math.isnan(memory.gap) else max(0.0, memory.gap)
        turn = -math.inf if math.isnan(memory.peak) else _TURN * memory.peak
        return {GAP: gap + self.gap, TURN: turn, LEAD: 0.0, CARRIED: -math.inf}

    def _sign(self, lesson: Lesson, found: Look, thresholds: dict[str, float]) -> Sign:
        values = found.measured()
        says = (
            f"after step {lesson.number + 1} FGSM leaves {found.fgsm:.0%} right and two half steps {found.pgd:.0%} "
            f"({found.clean:.0%} at x); gradients agree to {found.alignment:.2f}: the training overfits to FGSM"
        )
        told = {**values, **{f"{name} threshold": at for name, at in thresholds.items()}}
        stop = self.remedy == "stop"
        return Sign(
            name="catastrophic overfitting",
            says=says,
            answer=Answer.STOP if stop else Answer.ROLL_BACK,
            method=None if stop else self.remedy,
            numbers={name: each for name, each in told.items() if math.isfinite(each)},
        )

    def _write(self, lesson: Lesson, found: Look, thresholds: dict[str, float], count: int, action: str) -> None:
        for sign, value in found.measured().items():
            entry = Entry(
                step=lesson.number, sign=sign, value=value, threshold=thresholds[sign], examples=count, action=action
            )
            self.log.append(entry)


def look_at(room: Classroom, lesson: Lesson, count: int) -> Look:
    """Measure the signs on the first `count` examples of a lesson: five forwards and three backwards.

    PGD-2 is x + ½ + ½ of the budget along signs of gradients; the worse of its two points counts.
    """
    index = torch.arange(count, device=lesson.y.device)
    region, y, stream = lesson.region.rows(index), lesson.y[index], lesson.stream.rows(index)

    def asked(point: Tensor, need: Need = Need.GRADIENT) -> Evaluation:
        with room.computing():
            return room.model.evaluate(point, y, CrossEntropy(), need=need)

    with room.model.borrowed():
        here = asked(region.x)
        slope = _slope(here)
        jumped = asked(region.extreme(slope), Need.VALUE)
        half = region.ascend(region.x, slope, 0.5)
        on_the_way = asked(half)
        ended = asked(region.ascend(half, _slope(on_the_way), 0.5), Need.VALUE)
        aside = asked(region.sample_clipped(stream, _PROBE))
    return Look(
        clean=_right(here, y),
        fgsm=_right(jumped, y),
        pgd=float((~on_the_way.won & ~ended.won).double().mean()),
        alignment=_alignment(slope, _slope(aside)),
        participation=float(participation(slope).nanmean()),
    )


def _crossed(found: Look, thresholds: dict[str, float]) -> tuple[bool, bool, bool]:
    values = found.measured()
    return values[GAP] >= thresholds[GAP], values[TURN] < thresholds[TURN], values[LEAD] >= thresholds[LEAD]


def _suspicious(found: Look, thresholds: dict[str, float]) -> bool:
    return sum(_crossed(found, thresholds)) >= 2 or found.measured()[GAP] >= 3 * thresholds[GAP]


def _right(found: Evaluation, y: Tensor) -> float:
    return float((found.outputs.argmax(1) == y).double().mean())


def _slope(found: Evaluation) -> Tensor:
    assert found.gradient is not None
    return found.gradient


def _alignment(a: Tensor, b: Tensor) -> float:
    """Return the mean cosine over the examples that have both directions; NaN if none has."""
    rows, others = flat(a).double(), flat(b).double()
    cosine = inner(rows, others) / (rows.norm(dim=1) * others.norm(dim=1))
    return float(cosine.nanmean())


@final
@dataclass(slots=True, kw_only=True)
class _Memory:
    """What is remembered from step to step; NaN: nothing yet.

    Attributes:
        trained, spent: passes over examples, of the training and of the sentinel.
        due: number of the step after which to look.
        loss, spread: running mean of the loss, and of its distance from that.
        gap, alignment: running levels of looks that showed neither of the two signs.
        peak: the highest level of the alignment: a slow fall would take the level along.
    """

    trained: float = 0.0
    spent: float = 0.0
    due: float = 0.0
    loss: float = math.nan
    spread: float = math.nan
    gap: float = math.nan
    alignment: float = math.nan
    peak: float = math.nan

    @classmethod
    def of(cls, room: Classroom) -> _Memory:
        return cls(**dict(zip(cls.__slots__, room.kept[KEPT].tolist(), strict=True))) if KEPT in room.kept else cls()

    def put(self, room: Classroom) -> None:
        """Write all into the classroom, where it is saved and brought back with the weights."""
        room.kept[KEPT] = torch.tensor([getattr(self, name) for name in self.__slots__], dtype=torch.float64)

    def affords(self, count: int, share: float) -> bool:
        """Return whether a look at `count` examples stays within a share of the passes."""
        return self.spent + _PASSES * count <= share * self.trained

    def heard(self, taught: Taught, count: int) -> bool:
        """Take in a step, and return whether the loss at its points is suddenly small: below level − 3 spreads."""
        self.trained += (taught.forwards + taught.backwards) * count
        sudden = taught.loss < self.loss - 3 * self.spread
        far = abs(taught.loss - self.loss)
        self.spread = far if math.isnan(self.spread) else _MEMORY * self.spread + (1 - _MEMORY) * far
        self.loss = taught.loss if math.isnan(self.loss) else _MEMORY * self.loss + (1 - _MEMORY) * taught.loss
        return sudden

    def learn(self, found: Look) -> None:
        """Move the levels towards a look that was not suspicious."""
        for name, value in (("gap", found.fgsm - found.pgd), ("alignment", found.alignment)):
            before = getattr(self, name)
            level = value if math.isnan(before) else _MEMORY * before + (1 - _MEMORY) * value
            setattr(self, name, before if math.isnan(value) else level)
        self.peak = self.alignment if math.isnan(self.peak) else max(self.peak, self.alignment)
