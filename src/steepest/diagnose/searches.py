"""Searches that several checks compare: what gradients find, what stronger ones find, and what only others do."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from steepest.attacks.contract import AttackResult
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.basis.shares import interval
from steepest.diagnose.check import FURTHER, SHARED, Price
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Remedy
from steepest.diagnose.probe import Probe
from steepest.models.contract import Answer, Evaluation, Question

STRONGER = (
    ("apgd(steps=100, restarts=2)", "scaled-ce"),
    ("apgd(steps=100)", "margin"),
    ("apgd(steps=50, targets=3)", "scaled-ce"),
)
"""What must fail too before a success of another search counts against the gradients: a success may be luck."""

_AGAIN = Price(passes=900, least=8)
_MOST = 32
_TIMED = 8

LIKELY = 0.005
"""A share of the survivors that its interval must exceed before a check fails."""


def require_gradient(probe: Probe) -> None:
    """Let only models pass that are meant to have a gradient.

    Raises:
        NotRun: the model was declared to answer less.
    """
    if probe.model.facts.answers != "gradient":
        raise NotRun(f"the model answers {probe.model.facts.answers} only, as it was declared to")


def found_by_gradients(probe: Probe) -> Tensor:
    """Return `probe.white_box`; nothing where no gradient reaches x: then a search along it finds nothing."""
    try:
        return probe.white_box
    except ModelError:
        return torch.zeros_like(probe.right)


def searched(probe: Probe, call: str, rows: Tensor, *, objective: str = "scaled-ce", seed: int = 1) -> AttackResult:
    """Return what a catalogued attack finds for `rows`, with random numbers other than those of the shared searches."""
    problem = probe.problem(objective).rows(rows)
    return ATTACKS.build(call).run(replace(problem, stream=problem.stream.split(seed)), probe.seed)


LATE = 0.05
"""A share of the survivors that only longer searches along gradients find, from which on short ones say little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What another search broke and gradients did not.

    Attributes:
        rows: bool [N], broken, but for those that a stronger search along gradients broke too.
        found: how many the other search broke.
        asked, held: of those, how many stronger searches along gradients were asked about, and could not break either.
        survivors: how many examples the other search was given.
    """

    rows: Tensor
    found: int
    asked: int
    held: int
    survivors: int

    @property
    def share(self) -> float:
        """Of the survivors that gradients cannot break and the other search can, as far as was asked."""
        return self.found / max(1, self.survivors) * self.held / max(1, self.asked)

    @property
    def level(self) -> Level:
        """FAIL from three examples on whose share is surely above 0.5 %, WARN for two; one may be luck."""
        if self.held >= 3 and interval(self.held, self.survivors)[0] > LIKELY:
            return Level.FAIL
        return Level.WARN if self.held >= 2 else Level.PASS

    @property
    def late(self) -> bool:
        """Whether longer searches along gradients find much that the shared short ones do not: those say little."""
        return interval(self.asked - self.held, self.survivors)[0] > LATE

    @property
    def text(self) -> str:
        """The count, and what stronger searches say of it."""
        said = f"{self.found} of {self.survivors} examples that gradients could not"
        if not self.found:
            return said
        again = f"{self.held} of {self.asked} asked again" if self.asked < self.found else f"{self.held}"
        return f"{said}; {again} withstand longer searches along gradients too"


def beyond_gradients(probe: Probe, found: Tensor, survivors: int) -> Beyond:
    """Ask of what another search found whether `STRONGER` searches along gradients find it too.

    At most 32 examples are asked again, fewer where the model is slow.

    Args:
        found: bool [N].
        survivors: how many examples the other search was given.
    """
    asked = found.nonzero().squeeze(1)[: min(_AGAIN.examples(probe), _MOST)]
    left = asked[~stronger(probe, asked)]
    rows = found.clone()
    rows[asked] = False
    rows[left] = True
    return Beyond(rows=rows, found=int(found.sum()), asked=asked.numel(), held=left.numel(), survivors=survivors)


def stronger(probe: Probe, rows: Tensor) -> Tensor:
    """Return bool, per row: broken by one of `STRONGER`; what one check asked is not asked again for another."""
    known, won = probe.once("stronger", lambda: (torch.zeros_like(probe.right), torch.zeros_like(probe.right)))
    left = rows[~known[rows]]
    known[left] = True
    for call, objective in STRONGER:
        if not left.numel():
            break
        try:
            broken = searched(probe, call, left, objective=objective).won
        except ModelError:  # no gradient reaches x
            break
        won[left[broken]] = True
        left = left[~broken]
    return won[rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Longer:
    """What `LONGER` did to examples that the short searches left.

    Attributes:
        rows: the examples asked about.
        won: bool, per row.
        values: of the margin at each of its points, [steps + 1, rows].
    """

    rows: Tensor
    won: Tensor
    values: Tensor


LONGER = "apgd(steps=40)"


def longer(probe: Probe) -> Longer:
    """Return what forty more steps do, with random numbers of their own; to 32 examples of a slow model.

    Raises:
        ModelError: no gradient reaches x.
    """
    return probe.once(FURTHER, lambda: _longer(probe))


def _longer(probe: Probe) -> Longer:
    rows = (probe.right & ~probe.white_box).nonzero().squeeze(1)[: SHARED[FURTHER].examples(probe)]
    recorder = _Recorder()
    if not rows.numel():
        return Longer(rows=rows, won=rows.bool(), values=probe.outputs.new_zeros(1, 0))
    problem = probe.problem(model=probe.model.asked_by(recorder)).rows(rows)
    # All go on, so that every value is of every example.
    problem = replace(problem, stream=problem.stream.split(1), drop_solved=False)
    won = ATTACKS.build(LONGER).run(problem, probe.seed).won
    return Longer(rows=rows, won=won, values=torch.stack(recorder.values))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Recorder:
    """An oracle that remembers the values of every question."""

    values: list[Tensor] = field(default_factory=list)

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        found = ask(question)
        self.values.append(found.value)
        return found


def nothing_left(says: str, of: int) -> Judgement:
    """Return the PASS of a search that has, or could have, nothing to find."""
    return Judgement(level=Level.PASS, says=says, statistic=0.0, threshold=LIKELY, of=of)


def judgement(beyond: Beyond, says: str, advice: str, remedy: str) -> Judgement:
    """Return what it means that another search broke what gradients did not.

    Where gradients break as much too, but not within the steps of short searches, that is a WARN of another kind.
    """
    clean = beyond.level is Level.PASS
    if clean and beyond.late:
        advice = "Short searches along gradients say little here: take the preset thorough, or more steps and restarts."
        return Judgement(
            level=Level.WARN,
            says=says,
            statistic=beyond.found / max(1, beyond.survivors),
            threshold=LATE,
            advice=advice,
            remedy=Remedy(name=remedy),
            of=beyond.survivors,
            family=Family.UNFINISHED,
        )
    return Judgement(
        level=beyond.level,
        says=says,
        statistic=beyond.share,
        threshold=LIKELY,
        flagged=None if clean else beyond.rows,
        advice="" if clean else advice,
        remedy=None if clean else Remedy(name=remedy),
        of=beyond.survivors,
    )


def affordable(probe: Probe, share: float, rows: Tensor, *, least: int, most: int) -> int:
    """Return how many points of each row may be asked in a share of the probe's seconds: a power of two in bounds.

    Searches take longer than forwards alone, so a short one is timed, unless forwards alone show that it is `least`.
    """
    if share * probe.seconds * probe.pace / max(1, rows.numel()) <= least:
        return least

    def timed() -> float:
        begin = time.perf_counter()
        searched(probe, f"noise(points={_TIMED})", rows)
        return _TIMED / max(time.perf_counter() - begin, 1e-6)

    points = share * probe.seconds * probe.once(("points in a second", rows.numel()), timed)
    return int(min(max(2 ** int(math.log2(max(points, 1.0))), least), most))
