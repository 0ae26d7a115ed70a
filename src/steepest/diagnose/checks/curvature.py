"""Does a full step pass the peak, and how far can the loss be from its linear model at most?"""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Series
from steepest.diagnose.precision import bare, clear, precise
from steepest.diagnose.probe import Probe
from steepest.landscape.curvature import Curvature
from steepest.landscape.curvature import curvature as measured
from steepest.landscape.linearity import linearity
from steepest.landscape.remainder import remainder_bound


@check(
    "curvature",
    "Does a full step along the gradient pass a peak of the loss?",
    Family.INFORMATION,
    cost=4,
    source="Taylor's theorem; Moosavi-Dezfooli et al. 2019, on curvature and robustness",
)
def curvature(probe: Probe) -> Judgement:
    """PASS with the curvature along FGSM's step, the gains foretold and got, and a bound from the weights if known."""
    rows = probe.require_right()
    found = _along(probe, rows)
    finite = found.gained.isfinite() & (found.first > 0)
    if not finite.any():
        raise NotRun("no example has a gradient that promises anything")
    first, gained, predicted = found.first[finite], found.gained[finite], found.predicted[finite]
    passed = float(found.overshoots.double().mean())
    bend = float((found.second[finite] / first).median())
    order = first.argsort()
    at = tuple(map(float, range(len(order))))
    series = tuple(
        Series(name=name, x=at, y=tuple(map(float, values[order].tolist())))
        for name, values in (("linear model", first), ("quadratic model", predicted), ("got", gained))
    )
    return Judgement(
        level=Level.PASS,
        says=f"along a full step the slope of the margin changes by {100 * bend:+.0f} % in the median, and "
        f"{100 * passed:.0f} % of the steps pass a peak{_bounded(probe)}",
        statistic=passed,
        picture=Picture(kind="lines", title="Gain of a full step", x="examples, by promise", y="gain", series=series),
        of=int(finite.sum()),
    )


def _along(probe: Probe, rows: Tensor) -> Curvature:
    here = probe.at_x("margin")
    assert here.gradient is not None
    end = probe.region.extreme(here.gradient)
    return clear(probe, rows, lambda ground, some: measured(ground, end[some]))


def _bounded(probe: Probe) -> str:
    """Return what the weights guarantee of the cross-entropy's distance from its linear model, beside what was met."""
    ground = precise(probe, "ce")
    guaranteed = remainder_bound(bare(ground, probe))
    if guaranteed.bound is None:
        return ""
    met = linearity(ground).gamma
    both = met.isfinite() & guaranteed.bound.isfinite()
    if not both.any():
        return ""
    most, least = float(met[both].max()), float(guaranteed.bound[both].max())
    broken = bool((met[both] > guaranteed.bound[both] * (1 + 1e-9) + torch.finfo(torch.float32).eps).any())
    contradiction = " (a contradiction: the network is not what its layers say)" if broken else ""
    return (
        f"; the cross-entropy leaves its linear model by {most:.3g} at most where it was searched, "
        f"and by {least:.3g} at most anywhere{contradiction}"
    )
