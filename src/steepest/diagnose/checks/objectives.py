"""Does another objective find more?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, check
from steepest.diagnose.checks.saturation import MOST, limits
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.probe import Probe
from steepest.landscape.saturation import logit_saturation
from steepest.models.objectives import CrossEntropy

SEARCH = "pgd(steps=20)"
NAMES = ("ce", "margin", "scaled-ce")

WARN, FAIL = 0.05, 0.20
"""Differences of success between the best and the worst objective."""


@check(
    "objectives",
    "Do cross-entropy, margin and scaled cross-entropy find the same?",
    Family.LOSS,
    cost=82,
    uses=(WHITE,),
    source="Carlini & Wagner 2017; Croce & Hein 2020; Yu & Xu 2023",
)
def objectives(probe: Probe) -> Judgement:
    """FAIL where the objective at hand breaks over 20 points fewer examples than another, WARN where over 5.

    Where the number at hand rests on another one, cross-entropy that is over 20 points behind because it saturates is
    a WARN: numbers of it would not stand. The difference must exceed three standard errors of the paired counts,
    or honest networks are warned of on a few examples.
    """
    rows, own = probe.require_right(), _own(probe)
    names = NAMES if own is None or own in NAMES else (*NAMES, own)
    try:
        broken = {name: probe.broken(SEARCH, name)[rows] for name in names}
    except ModelError as error:
        raise NotRun(str(error)) from None
    share = {name: float(found.double().mean()) for name, found in broken.items()}
    best, least = max(share, key=lambda name: share[name]), min(share, key=lambda name: share[name])
    # A weakness of the objective at hand counts before a greater one of another.
    judged = [(_level(probe, broken[best], broken[each], each, own), each) for each in (own, least) if each is not None]
    level, worst = next((each for each in judged if each[0] is not Level.PASS), judged[-1])
    gap, missed = share[best] - share[worst], broken[best] & ~broken[worst]
    bad = level is not Level.PASS
    flagged = torch.zeros_like(probe.right)
    flagged[rows] = missed
    return Judgement(
        level=level,
        says=f"{SEARCH} breaks " + ", ".join(f"{100 * value:.0f} % with {name}" for name, value in share.items()),
        statistic=gap,
        threshold=WARN if worst == own else FAIL,
        flagged=flagged if bad else None,
        advice=_advice(worst, best, measured=worst == own) if bad else "",
        remedy=Remedy(name="scaled objective") if bad and worst == own and worst != "scaled-ce" else None,
        picture=Picture(
            kind="bars",
            title=f"Broken by {SEARCH}",
            x="objective",
            y="share",
            series=tuple(Series(name=name, x=(float(at),), y=(share[name],)) for at, name in enumerate(share)),
        ),
        of=rows.numel(),
    )


def _level(probe: Probe, best: Tensor, other: Tensor, name: str, own: str | None) -> Level:
    """Return what it means that the objective `name` breaks `other` where another breaks `best`."""
    lead, either = int(best.sum()) - int(other.sum()), int((best ^ other).sum())
    gap = lead / len(best)
    if lead <= 3 * math.sqrt(either) or gap <= WARN:
        return Level.PASS
    if name == own:
        return Level.FAIL if gap > FAIL else Level.WARN
    if name != "ce" or gap <= FAIL:
        return Level.PASS
    margins = logit_saturation(probe.outputs, probe.y)[probe.right]
    beyond = float((margins > limits(probe.outputs.dtype)[0]).double().mean())
    return Level.WARN if beyond > MOST else Level.PASS


def _own(probe: Probe) -> str | None:
    """Return the name of the objective that the number at hand was measured with; None where it has none."""
    if isinstance(probe.objective, str):
        return probe.objective
    return "ce" if isinstance(probe.objective, CrossEntropy) else None


def _advice(worst: str, best: str, *, measured: bool) -> str:
    if measured:
        return f"The number was measured with {worst}, which misses what {best} finds: measure again with {best}."
    return f"The number at hand does not rest on {worst} alone, but do not compare with numbers that do."
