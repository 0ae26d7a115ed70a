"""Do many steps do better than one?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.probe import Probe
from steepest.landscape.terrain import gradient_of

MANY = "pgd(steps=20)"
QUARTER = 0.25
RISE = 0.05
"""So much more accuracy under one full step than under one of a quarter is no accident of a few examples."""

HELD, LEFT, KEPT = 0.9, 0.5, 0.5
"""A model that learned the full step: so many right examples at least withstand one step and so many at most twenty,
and a full step gains less than this share of what the gradient at x promises, in the median."""


@check(
    "single-step",
    "Do many steps break more than one, and a full step more than a small one?",
    Family.ONE_STEP,
    cost=4,
    uses=(WHITE,),
    source="Athalye, Carlini & Wagner 2018; Wong, Rice & Kolter 2020; Kim, Lee & Lee 2021",
)
def single_step(probe: Probe) -> Judgement:
    """FAIL where one step breaks more than twenty by two standard errors; WARN where a smaller step breaks more, where
    twenty break what one leaves and it gains less than half of its promise, or makes more right than wrong.

    How much more twenty steps break than one is not judged alone: curved ground has such gaps too.
    """
    rows = probe.require_right()
    try:
        once, often = (probe.broken(call)[rows] for call in ("fgsm", MANY))
        quarter = probe.once("fgsm at a quarter", lambda: _broken_by(probe, QUARTER))[rows]
    except ModelError as error:
        raise NotRun(str(error)) from None
    held, left, near = (1 - float(each.double().mean()) for each in (once, often, quarter))
    jump = probe.once("a full step", lambda: _jump(probe, rows))
    level, advice, sign = Level.PASS, "", None
    if _ahead(once, often):
        level, sign = Level.FAIL, (left - held, 0.0, once & ~often)
        advice = (
            "Iterating makes the search worse, so gradients away from x mislead it: attack through a surrogate, with "
            "estimated gradients, and with a search that needs none."
        )
    elif held >= HELD and left <= LEFT and jump.kept < KEPT:
        level, sign = Level.WARN, (jump.kept, KEPT, often & ~once)
    elif (_ahead(quarter, once) and held - near > RISE) or _rises(probe):
        level, sign = Level.WARN, (held - near, RISE, quarter & ~once)
    elif _ahead(jump.right, probe.right):
        clean, after = (float(each.double().mean()) for each in (probe.right, jump.right))
        level, sign = Level.WARN, (after - clean, 0.0, jump.right[rows])
    if level is Level.WARN:
        advice = "The model withstands the full step that it may have been trained on; believe many small steps only."
    flagged = torch.zeros_like(probe.right)
    if sign is not None:
        flagged[rows] = sign[2]
    failed = level is Level.FAIL
    return Judgement(
        level=level,
        says=f"of the examples right at x {100 * held:.0f} % withstand one step, {100 * left:.0f} % twenty, and "
        f"{100 * near:.0f} % one step of a quarter of the budget{jump.says(probe)}",
        statistic=held - near if sign is None else sign[0],
        threshold=RISE if sign is None else sign[1],
        flagged=None if sign is None else flagged,
        advice=advice,
        remedy=None if sign is None else Remedy(name="surrogate" if failed else "more steps"),
        picture=_picture(probe, ((0.0, 1.0), (QUARTER, near), (1.0, held)), left),
        of=len(rows),
        family=Family.MASKED if failed else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jump:
    """One full step up the margin from x.

    Attributes:
        kept: what it gains of what the gradient promises, in the median; NaN where none promises.
        right: bool [N], right after it, whatever they were at x.
    """

    kept: float
    right: Tensor

    def says(self, probe: Probe) -> str:
        """Return what there is to tell of it."""
        told = "" if math.isnan(self.kept) else f"; a full step gains {100 * self.kept:.0f} % of what its gradient "
        told += "promises" if told else ""
        gone = probe.right & ~self.right
        new = self.right & ~probe.right
        return told + (f"; it makes {int(new.sum())} right and {int(gone.sum())} wrong" if new.any() else "")


def _jump(probe: Probe, rows: Tensor) -> _Jump:
    here = probe.at_x()
    slope = gradient_of(here)
    ahead = probe.terrain().value(probe.region.extreme(slope))
    share = (ahead.value.double() - here.value.double())[rows] / probe.region.support(slope).double()[rows]
    share = share[share.isfinite()]
    return _Jump(kept=float(share.median()) if share.numel() else math.nan, right=~ahead.won)


def _broken_by(probe: Probe, share: float) -> Tensor:
    """Return bool [N]: right at x, and broken by one step of a share of the budget."""
    whole = probe.problem()
    found = ATTACKS.build("fgsm").run(replace(whole, region=whole.region.scaled(share)), probe.seed)
    return probe.right & found.won


def _ahead(first: Tensor, second: Tensor) -> bool:
    """Whether `first` breaks more than `second` by two standard errors of the paired counts, and by more than one."""
    lead = int((first & ~second).sum()) - int((second & ~first).sum())
    return lead > 1 and lead > 2 * math.sqrt(int((first ^ second).sum()))


def _rises(probe: Probe) -> bool:
    """Whether on all examples of an audit a full step leaves clearly more accuracy than one of about a quarter."""
    if probe.traces is None:
        return False
    held = {factor: value for factor, value in probe.traces.curve if 0 < factor <= QUARTER or factor == 1}
    if 1 not in held or len(held) < 2:
        return False
    near = held[max(factor for factor in held if factor < 1)]
    error = math.sqrt(max(near * (1 - near), held[1] * (1 - held[1])) / max(1, probe.traces.count))
    return held[1] - near > max(RISE, 2 * error)


def _picture(probe: Probe, measured: tuple[tuple[float, float], ...], left: float) -> Picture:
    known = probe.traces.curve if probe.traces is not None and probe.traces.curve else measured
    one = Series(name="one step", x=tuple(at for at, _ in known), y=tuple(value for _, value in known))
    many = Series(name="twenty steps", x=(1.0,), y=(left,))
    return Picture(
        kind="lines",
        title="Accuracy under one step and under twenty",
        x="ε / largest ε",
        y="accuracy",
        series=(one, many),
    )
