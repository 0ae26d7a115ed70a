"""Do the gradients along a segment add up to the change of the margin?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.diagnose.check import WIDE, Price, check
from steepest.diagnose.checks.finite_differences import WIDELY, differing
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.precision import patched, precise
from steepest.diagnose.probe import Probe
from steepest.landscape.segment import Segment, along
from steepest.landscape.terrain import Terrain

WARN, FAIL = 0.05, 0.3
"""Residuals of honest networks were at most 0.003 (budgets up to L∞ 0.3 on digits); rounding to 8 levels left 0.09."""

SURE = WARN / 2
"""A residual below it, and rounding below that share of the change, are clear without float64."""

COARSE, FINE = 8, 32
FALLS = 0.4
"""Four times the points leave an honest residual a quarter as large; a jump's stays, and noise halves."""

MISSED = 0.02
"""A share of the examples that other searches may break alone, by chance."""

SQUARES = "square(queries=300)"
_CORNER = 40
_COST = Price(passes=2 * (2 * FINE + 2), least=16)
_FEWEST = 8
"""Of a slow model at least so many are asked about again in float64, where rounding may show or a residual counts."""


@check(
    "segment",
    "Do the gradients along a segment add up to the change of the margin?",
    Family.MASKED,
    cost=_COST,
    source="Lebesgue's fundamental theorem of calculus; shattered gradients: Athalye, Carlini & Wagner 2018",
)
def segment(probe: Probe) -> Judgement:
    """FAIL where over 30 % of the change along segments is not in the gradients, WARN where over 5 %.

    Segments go to FGSM's point and to a random corner. A residual counts only if it stays when four times as many
    gradients are summed, and if float64 repeats it. Where it stays and gradient searches find all that others find, the
    gradient is a surrogate that works: WARN.
    """
    precise(probe)  # refuses before anything is asked
    rows = probe.require_right()[: _COST.examples(probe)]
    try:
        fine = probe.once(("residuals", FINE), lambda: _residuals(probe, FINE, rows))
    except ModelError as error:
        raise NotRun(str(error)) from None
    known = fine[~fine.isnan()]
    if not len(known):
        raise NotRun("no output or gradient on the way is finite")
    middle, coarse, level = float(known.median()), None, Level.PASS
    if middle > WARN:
        coarse = float(probe.once(("residuals", COARSE), lambda: _residuals(probe, COARSE, rows)).nanmedian())
        if middle > FALLS * coarse:
            level = Level.FAIL if middle > FAIL else Level.WARN
    bad = level is not Level.PASS
    works = bad and int(_missed(probe).sum()) <= max(1, MISSED * len(rows))
    level = Level.WARN if works else level
    told = "" if coarse is None else f" ({100 * coarse:.1f} % with {COARSE})"
    flagged = torch.zeros_like(probe.right)
    flagged[rows] = fine > WARN
    return Judgement(
        level=level,
        says=f"{100 * middle:.1f} % of the change along segments is not in the {FINE} gradients on the way{told}"
        + ("; gradient searches find what others find all the same" if works else ""),
        statistic=middle,
        threshold=WARN,
        flagged=flagged if bad else None,
        advice=_advice(works=works) if bad else "",
        remedy=_remedy(probe, level) if bad and not works else None,
        picture=_picture(known),
        of=len(known),
    )


def _residuals(probe: Probe, points: int, rows: Tensor) -> Tensor:
    """Return the mean residual of the segments to FGSM's point and to a random corner, per row; NaN where x is both.

    In the model's own precision where that leaves no doubt, in float64 elsewhere; NaN where a slow model was not asked.
    """
    wide, ground = precise(probe).rows(rows), probe.terrain().rows(rows)
    here, region = probe.at_x("margin"), ground.region
    assert here.gradient is not None
    ends = region.extreme(here.gradient[rows]), region.corner(ground.stream.split(_CORNER), 0)
    if wide.precision is None:
        return _mean([_along(ground, end, points) for end in ends])
    rough = [_along(ground, end, points) for end in ends]
    doubt = torch.stack([~(each.noise < SURE * each.whole) | ~(each.residual < SURE) for each in rough]).any(0)
    found, doubtful = _mean(rough).masked_fill(doubt, torch.nan), doubt.nonzero().squeeze(1)
    again = doubtful[: probe.few(WIDE * _COST.passes * points / FINE, least=_FEWEST)]
    if not again.numel():
        return found
    return patched(found, again, _mean([_along(wide.rows(again), end[again], points) for end in ends]))


def _along(ground: Terrain, end: Tensor, points: int) -> Segment:
    """Return what gradients on the way add up to; all NaN where there is no way."""
    still, found = (end == ground.x).flatten(1).all(1), along(ground, end, points=points)
    return Segment(off=found.off.masked_fill(still, torch.nan), whole=found.whole, noise=found.noise)


def _mean(found: Sequence[Segment]) -> Tensor:
    return torch.stack([each.residual for each in found]).nanmean(0)


def _missed(probe: Probe) -> Tensor:
    """Return bool [N]: right at x, not broken by gradient searches, and broken by one without gradients."""
    left = probe.right & ~probe.white_box
    rest, found = left.nonzero().squeeze(1), torch.zeros_like(left)
    if len(rest):
        found[rest] = ATTACKS.build(SQUARES).run(probe.problem().rows(rest), probe.seed).won
    return found


def _remedy(probe: Probe, level: Level) -> Remedy:
    """Return a surrogate where there is no gradient or a wrong one, and differences where the ground is shattered."""
    size = probe.at_x("margin").size
    assert size is not None
    if level is Level.FAIL:
        rows, lies = differing(probe)
    else:
        rows = probe.require_right()
        lies = torch.zeros_like(rows, dtype=torch.bool)
    astray = (size[rows] == 0) | lies
    return Remedy(name="surrogate") if 2 * int(astray.sum()) > len(rows) else WIDELY


def _advice(*, works: bool) -> str:
    if works:
        return (
            "The gradient is not the slope (the backward pass is not the forward's, or the model jumps), and leads on "
            "all the same: say so with the number."
        )
    return (
        "The model jumps between the points that gradients are taken at, or its backward pass is not the forward's: "
        "attack through a surrogate, with gradients estimated over a wide step, and with a search that needs none."
    )


def _picture(known: Tensor) -> Picture:
    counts = torch.histc(known.clamp(0, 1), 20, 0, 1).tolist()
    series = Series(name="examples", x=tuple(at / 20 for at in range(20)), y=tuple(map(float, counts)))
    return Picture(
        kind="histogram", title="What gradients leave unexplained", x="residual", y="examples", series=(series,)
    )
