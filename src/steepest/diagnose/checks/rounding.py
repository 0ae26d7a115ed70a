"""Do successes survive as images of 8 bits, and in float64?"""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, WIDE, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Series
from steepest.diagnose.probe import WHITE_BOX, Probe
from steepest.diagnose.searches import require_gradient
from steepest.models.model import Model
from steepest.models.widened import in_float64

LOST, VOID = 0.05, 0.2
"""Shares of the successes that float64 does not repeat: from here on a WARN, a FAIL."""

_LEVELS = 255


@check(
    "rounding",
    "Do successes survive as images of 8 bits, and in float64?",
    Family.MASKED,
    cost=1 + WIDE,
    uses=(WHITE,),
    source="Carlini et al. 2019; ours",
)
def rounding(probe: Probe) -> Judgement:
    """FAIL where over 20 % of the gradients' successes, WARN where over 5 % (and 2) are no success in float64.

    Lost as images of 8 bits, rounded towards x, is information: such points are successes of the budget all the same.
    """
    require_gradient(probe)
    probe.require_right()
    try:
        rows = probe.white_box.nonzero().squeeze(1)
    except ModelError as error:
        raise NotRun(str(error)) from None
    if not rows.numel():
        raise NotRun("gradients broke no example, so there is no success to round")
    wide = in_float64(Model(probe.model.network, probe.model.box, facts=probe.model.facts), probe.x)
    if wide is None:
        raise NotRun("the model has no twin in float64 that answers alike")
    points, y = _points(probe, rows), probe.y[rows]
    lost = _right(wide, points.double(), y)
    coarse = _coarse(probe, points, rows)
    share, many = float(lost.double().mean()), int(lost.sum())
    level = Level.PASS if share <= LOST or many < 2 else Level.FAIL if share > VOID else Level.WARN
    flagged = torch.zeros_like(probe.right)
    flagged[rows[lost]] = True
    bars = [("float64", share)] + ([] if coarse is None else [("8 bits", coarse)])
    eight = "" if coarse is None else f", {100 * coarse:.0f} % as images of 8 bits rounded towards x"
    return Judgement(
        level=level,
        says=f"of {rows.numel()} successes {many} are none in float64{eight}",
        statistic=share,
        threshold=LOST,
        flagged=flagged if level is not Level.PASS else None,
        advice="Successes are artefacts of float32: judge in float64, model.double(), before you count them."
        if level is not Level.PASS
        else "",
        picture=Picture(
            kind="bars",
            title="Successes that are lost",
            x="asked again",
            y="share",
            series=tuple(Series(name=name, x=(float(at),), y=(value,)) for at, (name, value) in enumerate(bars)),
        ),
        of=rows.numel(),
        family=Family.INFORMATION if level is Level.PASS else None,
    )


def _points(probe: Probe, rows: Tensor) -> Tensor:
    """Return a success of some gradient search for each row."""
    points = probe.x.clone()
    for call in reversed(WHITE_BOX):
        found = probe.attacked(call)
        points[found.won] = found.point[found.won]
    return points[rows]


def _coarse(probe: Probe, points: Tensor, rows: Tensor) -> float | None:
    """Return the share of successes lost on the grid of 1/255; None where x are no images in [0, 1]."""
    lower, upper = probe.region.box.bounds(probe.x)
    if probe.x.ndim != 4 or bool((lower != 0).any() | (upper != 1).any()):
        return None
    x, wide = probe.x[rows].double(), points.double()
    level = torch.where(wide >= x, (wide * _LEVELS).floor(), (wide * _LEVELS).ceil()) / _LEVELS
    # A step towards x must not cross it, where x itself lies between two levels.
    level = torch.where(wide >= x, level.maximum(x), level.minimum(x)).to(points.dtype)
    return float(_right(probe.model, level, probe.y[rows]).double().mean())


def _right(model: Model, points: Tensor, y: Tensor) -> Tensor:
    return model.logits(points).argmax(1) == y
