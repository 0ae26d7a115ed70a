"""Can a first-order step still gain where the search ended?"""

from __future__ import annotations

import torch

from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Series
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import require_gradient
from steepest.landscape.gap import frank_wolfe_gap

DONE, OPEN = 0.1, 0.5
"""A relative gap up to which a search is done, and a median from which on gradients at its ends still say "go on"."""

_FEWEST = 5
_BINS = 10


@check(
    "unfinished",
    "Can a first-order step still gain where the search ended?",
    Family.UNFINISHED,
    cost=2,
    uses=(WHITE,),
    source="Jaggi 2013; Wang et al. 2019 (FOSC)",
)
def unfinished(probe: Probe) -> Judgement:
    """WARN where the median relative Frank-Wolfe gap at the ends of APGD, of unbroken examples, is above 0.5.

    Kinks of a ReLU keep gaps above 0.1 at points that no step improves, so the share of those is information only.
    """
    require_gradient(probe)
    probe.require_right()
    try:
        rows = (probe.right & ~probe.white_box).nonzero().squeeze(1)
        if rows.numel() < _FEWEST:
            raise NotRun(f"gradients left {rows.numel()} examples unbroken; {_FEWEST} are needed")
        ends = probe.attacked("apgd(steps=20)").point[rows]
        gap = frank_wolfe_gap(probe.terrain("margin").rows(rows), ends)
    except ModelError as error:
        raise NotRun(str(error)) from None
    gap = gap[gap.isfinite()]
    if not gap.numel():
        raise NotRun("no gradient at the end of a search is a finite number")
    middle, above = float(gap.median()), float((gap > DONE).double().mean())
    warned = middle > OPEN
    flagged = torch.zeros_like(probe.right)
    flagged[rows] = True
    return Judgement(
        level=Level.WARN if warned else Level.PASS,
        says=f"where APGD ended unsuccessful, a first-order step promises {100 * middle:.0f} % of the budget's "
        f"whole gain in the median (above {100 * DONE:.0f} % at {100 * above:.0f} % of the ends)",
        statistic=middle,
        threshold=OPEN,
        flagged=flagged if warned else None,
        advice="The search stopped on the way, or gradients change faster than its steps: more steps, smaller ones, or "
        "averaged gradients."
        if warned
        else "",
        picture=_picture(gap),
        of=gap.numel(),
        family=None if warned else Family.INFORMATION,
    )


def _picture(gap: torch.Tensor) -> Picture:
    counts = torch.histc(gap.clamp(0, 1).float(), bins=_BINS, min=0, max=1)
    edges = tuple(at / _BINS for at in range(_BINS))
    return Picture(
        kind="histogram",
        title="What a first-order step still promises where APGD ended",
        x="relative gap",
        y="examples",
        series=(Series(name="unbroken", x=edges, y=tuple(counts.tolist())),),
    )
