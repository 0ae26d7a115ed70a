"""Does a search along gradients break everything where everything is allowed?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from steepest.attacks.contract import Problem
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from steepest.diagnose.check import SHARED, WHOLE, Price, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import require_gradient

ALL = 0.99
FACTORS = (0.25, 0.5, 1.0, 2.0)
"""Times the budget, before the whole box."""

_WALK = "apgd(steps=10, start='worst')"
_LONGER = (
    ("apgd(steps=100, start='worst')", "scaled-ce"),
    ("apgd(steps=100, start='worst')", "margin"),
    ("apgd(steps=50, targets=9, start='worst')", "scaled-ce"),
)
"""No search begins at a random point: in the whole box those are of other classes anyway, and prove no gradient."""

_AGAIN = Price(passes=1300, least=8)


@check(
    "unbounded",
    "Does a search along gradients break every example where the whole box is allowed?",
    Family.MASKED,
    cost=0,
    uses=(WHOLE,),
    source="Athalye, Carlini & Wagner 2018; Carlini et al. 2019; Pintor et al. 2022, unconstrained failure",
)
def unbounded(probe: Probe) -> Judgement:
    """FAIL where gradients leave over 1 % of the examples, and at least 2, unbroken in the whole box.

    Asked are examples for which the box holds one that is predicted as another class, so that all can be broken. Each
    factor begins where the one before ended, so the curve never falls.
    """
    require_gradient(probe)
    rows, factors, shares, left = curve(probe)
    factor, share = factors[-1], shares[-1]
    failed = share < ALL and left.numel() >= 2
    flagged = torch.zeros_like(probe.right)
    flagged[left] = True
    return Judgement(
        level=Level.FAIL if failed else Level.WARN if left.numel() else Level.PASS,
        says=f"in the whole box, {factor:.3g} times the budget, gradients broke {100 * share:.0f} % of the examples",
        statistic=share,
        threshold=ALL,
        flagged=flagged if left.numel() else None,
        advice="In the whole box other classes are within reach of each, so the search failed, not the attack model: "
        "gradients lead nowhere. Attack through a surrogate, and with square or relay."
        if left.numel()
        else "",
        remedy=Remedy(name="surrogate") if failed else None,
        picture=Picture(
            kind="lines",
            title="Success of gradients by the size of the budget",
            x="ε in budgets",
            y="share broken",
            series=(Series(name="apgd", x=(0.0, *factors), y=(0.0, *shares)),),
        ),
        of=rows.numel(),
    )


Way = tuple[Tensor, tuple[float, ...], list[float], Tensor]
"""Rows that can be broken, factors, the share broken at each, and rows that stay unbroken at the last."""


def curve(probe: Probe) -> Way:
    """Return how far gradients come on the way to the whole box, measured once; of 16 examples of a slow model.

    Raises:
        NotRun: the whole box says nothing here.
    """
    return probe.once(WHOLE, lambda: _curve(probe))


def _curve(probe: Probe) -> Way:
    rows = _breakable(probe)[: SHARED[WHOLE].examples(probe)]
    factor = float(whole_box(probe)[rows].amax())
    factors = (*(each for each in FACTORS if each < factor), factor)
    try:
        return rows, factors, *_walked(probe, rows, factors)
    except ModelError as error:
        raise NotRun(str(error)) from None


def whole_box(probe: Probe) -> Tensor:
    """Return by what the budget must be multiplied to hold the whole box, float64 [N].

    Raises:
        NotRun: no multiple of it does, or the box is open.
    """
    lower, upper = probe.region.limits()
    if bool(lower.isinf().any() | upper.isinf().any()):
        raise NotRun("the box is open: there is no largest budget")
    farthest = torch.where(upper >= -lower, upper, lower).expand(probe.x.shape)
    gauge = probe.region.budget.gauge(farthest)
    if not bool(gauge.isfinite().all()):
        raise NotRun("no multiple of the budget holds the whole box: it freezes some of what it covers")
    return gauge.clamp_min(1.0)


def _breakable(probe: Probe) -> Tensor:
    """Return the rows that are right, and for which another of the probe's points is predicted as another class."""
    rows = probe.require_right(2)
    predicted = probe.outputs.argmax(1)
    other = (predicted[None] != probe.y[rows, None]).any(1)
    if not other.any():
        raise NotRun("all examples are predicted as one class, so no other is known to be within reach")
    return rows[other]


def _walked(probe: Probe, rows: Tensor, factors: tuple[float, ...]) -> tuple[list[float], Tensor]:
    """Return the share broken at each factor, and the rows that stay unbroken at the last."""
    left, worst, shares = rows, probe.x[rows], []
    for factor in factors:
        problem = _at(probe, left, factor)
        found = ATTACKS.build(_WALK).run(replace(problem, worst=problem.region.project(worst)), probe.seed)
        left, worst = left[~found.won], found.point[~found.won]
        shares.append(1 - left.numel() / rows.numel())
        if not left.numel():
            return [*shares, *[1.0] * (len(factors) - len(shares))], left
    asked, held = 0, left[:0]
    for part in torch.split(left, _AGAIN.examples(probe)):
        asked, held = asked + part.numel(), torch.cat([held, _held(probe, part)])
        if held.numel() >= 2:  # enough to judge by
            break
    shares[-1] = 1 - left.numel() / rows.numel() * held.numel() / asked
    return shares, held


def _held(probe: Probe, left: Tensor) -> Tensor:
    """Return the rows that long searches do not break either."""
    for call, objective in _LONGER:
        if left.numel():
            left = left[~ATTACKS.build(call).run(_boxed(probe, left, objective), probe.seed).won]
    return left


def _at(probe: Probe, rows: Tensor, factor: float) -> Problem:
    problem = probe.problem().rows(rows)
    return replace(problem, region=problem.region.scaled(factor))


def _boxed(probe: Probe, rows: Tensor, objective: str) -> Problem:
    """Return the same set as at the last factor, with steps in sides of the box: those of a ball are far too long."""
    problem = probe.problem(objective).rows(rows)
    x, box = problem.region.x, problem.region.box
    return replace(problem, region=Region(Linf(float(box.side(x))), box, x))
