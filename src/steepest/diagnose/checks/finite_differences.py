"""Is the gradient the slope?"""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.diagnose.check import WIDE, Price, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.precision import precise
from steepest.diagnose.probe import Probe
from steepest.landscape.differences import FiniteDifferences
from steepest.landscape.differences import finite_differences as measured

SCALES = (1e-3, 0.1, 1.0)
BLIND, FAR, WRONG = 0.1, 0.5, 0.25
"""Shares of examples. Inputs on a kink (equal pixels under a median) have no slope, so that some are always wrong."""

TWICE, THRICE = 2.0, 3.0

WIDELY = Remedy(name="estimated gradients", parameters={"reach": 1.0})
"""Differences over the whole budget see through rounding and shattered ground; narrower ones found less."""

_CORNERS = 41
_COST = Price(passes=20 * WIDE, least=16)


@check(
    "finite-differences",
    "Is the gradient the slope of the margin, near by and far?",
    Family.MASKED,
    cost=_COST,
    source="Athalye, Carlini & Wagner 2018; Carlini et al. 2019",
)
def finite_differences(probe: Probe) -> Judgement:
    """FAIL where the gradient is not the slope at a thousandth of the budget, or zero where the margin changes.

    Slopes are differences along FGSM's step and two random corners. Agreement near by and none far off is curvature.
    None near by and some far off is a surrogate gradient: WARN. In float64, since along random corners rounding of
    float32 hides slopes near by; so a slow model is asked about 16 examples.
    """
    try:
        rows, found = _slopes(probe)
    except ModelError as error:
        raise NotRun(str(error)) from None
    known = ~found.autograd.isnan().any(1) & found.measured.isfinite().flatten(1).all(1)
    if not known.any():
        raise NotRun("no output or gradient is finite")
    blind = _blind(probe, found, rows) & known
    wrong = _apart(found, 0, TWICE) & known & ~blind
    far = wrong & _apart(found, 1, THRICE) & _apart(found, 2, THRICE)
    share = {
        name: float(each[known].double().mean()) for name, each in (("blind", blind), ("wrong", wrong), ("far", far))
    }
    failed = share["blind"] > BLIND or share["far"] > FAR
    level = Level.FAIL if failed else Level.WARN if share["wrong"] > WRONG else Level.PASS
    bad = level is not Level.PASS
    flagged = torch.zeros_like(probe.right)
    flagged[rows] = blind | (far if failed else wrong)
    return Judgement(
        level=level,
        says=f"the gradient is not the slope at a thousandth of the budget for {100 * share['wrong']:.0f} % of the "
        f"examples, nor farther off for {100 * share['far']:.0f} %, and zero where the margin changes for "
        f"{100 * share['blind']:.0f} %",
        statistic=share["blind"] if share["blind"] > BLIND else share["wrong"],
        threshold=BLIND if share["blind"] > BLIND else WRONG,
        flagged=flagged if bad else None,
        advice=_advice(failed=failed) if bad else "",
        remedy=WIDELY if failed else None,
        picture=_picture(found, known),
        of=int(known.sum()),
    )


def differing(probe: Probe) -> tuple[Tensor, Tensor]:
    """Return rows that are right at x, and whether their gradient is not the slope at a thousandth of the budget."""
    rows, found = _slopes(probe)
    return rows, _apart(found, 0, TWICE)


def _slopes(probe: Probe) -> tuple[Tensor, FiniteDifferences]:
    return probe.once("differences", lambda: _measured(probe))


def _measured(probe: Probe) -> tuple[Tensor, FiniteDifferences]:
    ground, here = precise(probe), probe.at_x("margin")
    rows = probe.require_right()[: _COST.examples(probe)]
    assert here.gradient is not None
    ground = ground.rows(rows)
    x, region, stream = ground.x.double(), ground.region, ground.stream.split(_CORNERS)
    ends = [region.extreme(here.gradient[rows]), *(region.corner(stream, number) for number in range(2))]
    return rows, measured(ground, torch.stack([end.double() - x for end in ends], 1), scales=SCALES)


def _apart(found: FiniteDifferences, scale: int, factor: float) -> Tensor:
    """Return bool, per row: along most directions autograd and the difference are not within a factor of each other.

    Both must be told from rounding; a change of sign is no agreement at any size.
    """
    a, b = found.autograd, found.measured[:, :, scale]
    sure = (a - b).abs() > found.noise[:, None, scale]
    close = (a * b > 0) & (a.abs() <= factor * b.abs()) & (b.abs() <= factor * a.abs())
    return (sure & ~close).sum(1) >= 2


def _blind(probe: Probe, found: FiniteDifferences, rows: Tensor) -> Tensor:
    """Return bool, per row: no gradient at all, and a margin that changes over the budget."""
    changes = (found.measured[:, :, -1].abs() > found.noise[:, None, -1]).any(1)
    size = probe.at_x("margin").size
    assert size is not None
    return (size[rows] == 0) & changes


def _advice(*, failed: bool) -> str:
    if failed:
        return (
            "The gradient says nothing of the loss: look for a custom backward, rounding or a detached tensor; attack "
            "with estimated gradients or a search that needs none."
        )
    return "The gradient is a surrogate that holds over the budget, not the slope at x; say so with the number."


def _picture(found: FiniteDifferences, known: Tensor) -> Picture:
    ratio = (found.measured[known] / found.autograd[known][:, :, None])[:, 0]
    middle = [ratio[:, at][ratio[:, at].isfinite()] for at in range(len(SCALES))]
    y = tuple(float(each.median()) if len(each) else 0.0 for each in middle)
    return Picture(
        kind="lines",
        title="Measured slope over gradient, along FGSM's step",
        x="step / budget",
        y="median ratio",
        series=(Series(name="ratio", x=SCALES, y=y),),
    )
