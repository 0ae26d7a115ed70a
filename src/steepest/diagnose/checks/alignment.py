"""How far does the gradient keep its direction?"""

from __future__ import annotations

import torch

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.precision import clear
from steepest.diagnose.probe import Probe
from steepest.landscape.alignment import gradient_alignment

RADII = (1e-3, 1e-2, 0.1, 1.0)
NEAR, LEAST = 1, 0.9
"""At a hundredth of the budget the gradient of an honest network still points the same way."""

LOST, GAP = 0.3, 0.5
"""A network fitted to one step has no common direction at the budget's end, and many steps break what one leaves."""


@check(
    "alignment",
    "How far from x does the gradient keep its direction?",
    Family.ONE_STEP,
    cost=10,
    source="Andriushchenko & Flammarion 2020",
)
def alignment(probe: Probe) -> Judgement:
    """WARN where the median cosine of the gradients at x and at 1 % of the budget is below 0.9.

    Also where it is below 0.3 at the budget's end and twenty steps break over half of the examples more than one
    does. A cosine that is small at the end alone is honest curvature.
    """
    rows = probe.require_right()
    found = clear(probe, rows, lambda ground, _: gradient_alignment(ground, radii=RADII))
    known = found[~found.isnan().any(1)]
    if 2 * len(known) < len(rows):
        raise NotRun("fewer than half of the examples have a gradient to compare; see the check zero-gradient")
    middle = known.median(0).values.tolist()
    turns, fitted = middle[NEAR] < LEAST, middle[-1] < LOST and _gap(probe) > GAP
    bad = turns or fitted
    low = known.quantile(0.25, dim=0).tolist()
    flagged = torch.zeros_like(probe.right)
    flagged[rows] = found[:, NEAR] < LEAST if turns else found[:, -1] < LOST
    listed = ", ".join(f"{value:.2f} at {radius:g}" for radius, value in zip(RADII, middle, strict=True))
    return Judgement(
        level=Level.WARN if bad else Level.PASS,
        says=f"the median cosine between the gradient at x and at a random point is {listed} of the budget",
        statistic=middle[-1] if fitted and not turns else middle[NEAR],
        threshold=LOST if fitted and not turns else LEAST,
        flagged=flagged if bad else None,
        advice=_advice(turns=turns) if bad else "",
        remedy=Remedy(name="more steps") if fitted else None,
        picture=Picture(
            kind="lines",
            title="Direction of the gradient",
            x="radius / budget",
            y="cosine with the gradient at x",
            series=(
                Series(name="median", x=RADII, y=tuple(map(float, middle))),
                Series(name="lower quarter", x=RADII, y=tuple(map(float, low))),
            ),
        ),
        of=len(known),
        # Shattered ground turns already where a network that is fitted to one step is still smooth.
        family=Family.MASKED if middle[0] < LEAST else None,
    )


def _gap(probe: Probe) -> float:
    """Return by how much of the examples right at x twenty steps break more than one."""
    once, often = (float(probe.broken(call)[probe.right].double().mean()) for call in ("fgsm", "pgd(steps=20)"))
    return often - once


def _advice(*, turns: bool) -> str:
    if turns:
        return (
            "The gradient turns within a hundredth of the budget, so that single steps say nothing: take many small "
            "ones, and gradients estimated over a wide step."
        )
    return "The model is fitted to one step: judge it by many small ones."
