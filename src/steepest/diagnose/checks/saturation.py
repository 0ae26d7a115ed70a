"""Are the margins so large that cross-entropy is flat?"""

from __future__ import annotations

import math

import torch

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.probe import Probe
from steepest.landscape.saturation import logit_saturation
from steepest.models.objectives import CrossEntropy

MOST = 0.5
"""The share of examples beyond a limit from which on a number of cross-entropy says little."""


@check(
    "saturation",
    "Are the margins so large that cross-entropy is flat?",
    Family.LOSS,
    cost=1,
    source="Carlini & Wagner 2017, on defensive distillation; limits of the number format",
)
def saturation(probe: Probe) -> Judgement:
    """FAIL where cross-entropy is ascended and its gradient underflows for most, WARN where it is 0 for most.

    For other objectives an underflow for most is a WARN: the number stands, one of cross-entropy would not.
    """
    rows = probe.require_right()
    margins = logit_saturation(probe.outputs[rows], probe.y[rows])
    if not bool(margins.isfinite().any()):
        raise NotRun("no margin is finite")
    zero, lost = limits(probe.outputs.dtype)
    beyond, gone = (float((margins > limit).double().mean()) for limit in (zero, lost))
    median = float(margins.nanmedian())
    says = (
        f"the median margin is {median:.3g}; cross-entropy is exactly 0 for {100 * beyond:.0f} % of the examples "
        f"(margin above {zero:.1f}), its gradient underflows for {100 * gone:.0f} % (above {lost:.1f})"
    )
    saturates = ascends_cross_entropy(probe)
    level = _level(beyond, gone, saturates=saturates)
    flagged = torch.zeros(probe.count, dtype=torch.bool, device=probe.y.device)
    flagged[rows] = margins > (lost if gone > MOST else zero)
    bad = level is not Level.PASS
    return Judgement(
        level=level,
        says=says,
        statistic=beyond if saturates and gone <= MOST else gone,
        threshold=MOST,
        flagged=flagged if bad else None,
        advice="Ascend scaled-ce or margin: neither depends on the scale of the logits. Numbers of cross-entropy on "
        "this model are void."
        if bad
        else "",
        remedy=Remedy(name="scaled objective") if bad and saturates else None,
        picture=_picture(margins[margins.isfinite()]),
        of=rows.numel(),
    )


def ascends_cross_entropy(probe: Probe) -> bool:
    """Return whether the number at hand is one of plain cross-entropy."""
    return probe.objective == "ce" or isinstance(probe.objective, CrossEntropy)


def limits(dtype: torch.dtype) -> tuple[float, float]:
    """Return the margins beyond which cross-entropy is exactly 0, and beyond which its gradient underflows.

    They are −log of half the distance from 1 to the next number, and of the smallest normal number.

    >>> [round(each, 2) for each in limits(torch.float32)]
    [16.64, 87.34]
    """
    kind = torch.finfo(dtype)
    return -math.log(kind.eps / 2), -math.log(kind.tiny)


def _level(beyond: float, gone: float, *, saturates: bool) -> Level:
    if gone > MOST:
        return Level.FAIL if saturates else Level.WARN
    return Level.WARN if saturates and beyond > MOST else Level.PASS


def _picture(margins: torch.Tensor) -> Picture:
    low, high = float(margins.min()), float(margins.max())
    width = max(high - low, 1e-30) / 20
    bins = ((margins - low) / width).long().clamp(0, 19)
    counts = torch.bincount(bins, minlength=20).tolist()
    edges = tuple(low + width * at for at in range(20))
    series = Series(name="examples", x=edges, y=tuple(float(each) for each in counts))
    return Picture(kind="histogram", title="Margins at x", x="margin", y="examples", series=(series,))
