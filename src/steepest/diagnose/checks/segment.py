"""Do the gradients along a segment add up to the change of the margin?"""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.diagnose.check import check
from steepest.diagnose.checks.finite_differences import WIDE, differing
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.precision import precise
from steepest.diagnose.probe import Probe
from steepest.landscape.segment import segment_residual

WARN, FAIL = 0.05, 0.3
"""Residuals of honest networks were at most 0.003 (budgets up to L∞ 0.3 on digits); rounding to 8 levels left 0.09."""

COARSE, FINE = 8, 32
FALLS = 0.4
"""Four times the points leave an honest residual a quarter as large; a jump's stays, and noise halves."""

MISSED = 0.02
"""A share of the examples that other searches may break alone, by chance."""

SQUARES = "square(queries=300)"
_CORNER = 40
_PASSES = 260


@check(
    "segment",
    "Do the gradients along a segment add up to the change of the margin?",
    Family.MASKED,
    cost=_PASSES,
    source="Lebesgue's fundamental theorem of calculus; shattered gradients: Athalye, Carlini & Wagner 2018",
)
def segment(probe: Probe) -> Judgement:
    """FAIL where over 30 % of the change along segments is not in the gradients, WARN where over 5 %.

    Segments go to FGSM's point and to a random corner. A residual counts only if it stays when four times as many
    gradients are summed. Where it stays and gradient searches find all that others find, the gradient is a
    surrogate that works: WARN.
    """
    rows = probe.require_right()
    rows = rows[: probe.few(_PASSES)]
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
    """Return the mean residual of the segments to FGSM's point and to a random corner, per row; NaN where x is both."""
    ground, here, region = precise(probe).rows(rows), probe.at_x("margin"), probe.region.rows(rows)
    assert here.gradient is not None
    ends = region.extreme(here.gradient[rows]), region.corner(ground.stream.split(_CORNER), 0)
    found = [
        segment_residual(ground, end, points=points).masked_fill((end == region.x).flatten(1).all(1), torch.nan)
        for end in ends
    ]
    return torch.stack(found).nanmean(0)


def _missed(probe: Probe) -> Tensor:
    """Return bool [N]: right at x, not broken by gradient searches, and broken by one without gradients."""
    left = probe.right & ~probe.white_box
    rest, found = left.nonzero().squeeze(1), torch.zeros_like(left)
    if len(rest):
        found[rest] = ATTACKS.build(SQUARES).run(probe.problem().rows(rest), probe.seed).won
    return found


def _remedy(probe: Probe, level: Level) -> Remedy:
    """Return a surrogate where there is no gradient or a wrong one, and differences where the ground is shattered."""
    blind = (probe.at_x("margin").size == 0) & probe.right
    lies = differing(probe) if level is Level.FAIL else blind
    return Remedy(name="surrogate") if 2 * int((blind | lies).sum()) > int(probe.right.sum()) else WIDE


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
