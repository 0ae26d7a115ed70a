"""The six indicators of attack failure, on one picture."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.diagnose.check import FURTHER, WHITE, WHOLE, Price, check
from steepest.diagnose.checks.surrogate import through_twin
from steepest.diagnose.checks.unbounded import curve
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Series
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import found_by_gradients, longer, require_gradient
from steepest.models.objectives import Margin

BOUNDS = {
    "unavailable gradients": 0.01,
    "unstable predictions": 0.1,
    "silent success": 0.0,
    "incomplete optimisation": 0.25,
    "transfer failure": 0.05,
    "unconstrained failure": 0.05,
}
"""From where on an indicator fires; wider than published, where healthy networks would reach them."""

_NEAR, _DRAWS = 0.125, 20
_LATE, _STILL = 10, 0.05
_COST = Price(passes=_DRAWS + 1, least=32)


@check(
    "indicators",
    "Do indicators of attack failure fire?",
    Family.MASKED,
    cost=_COST,
    uses=(WHITE, FURTHER, WHOLE),
    source="Pintor et al. 2022, indicators of attack failure; the second one relative to the spread of the logits",
)
def indicators(probe: Probe) -> Judgement:
    """WARN where one of the six indicators fires; each is a share of examples, but the second, which is a mean.

    Unavailable gradients: none, or exactly zero, of the margin. Unstable predictions: |Δm|/(|m| + deviation of the
    logits) at random points of an eighth of the budget, at most 1. Silent success: the point returned is none though
    one was met, impossible here, and asked. Incomplete optimisation: over 5 % of the best margin's whole rise falls
    into the last 10 of 40 steps, where nothing was broken. Transfer failure: broken through a surrogate alone.
    Unconstrained failure: unbroken in the whole box. What could not be measured is left out.
    """
    require_gradient(probe)
    rows = probe.require_right()
    found = {
        "unavailable gradients": _unavailable(probe, rows),
        "unstable predictions": _unstable(probe, rows[: _COST.examples(probe)]),
        "silent success": _silent(probe, rows),
        "incomplete optimisation": _incomplete(probe),
        "transfer failure": _transferred(probe),
        "unconstrained failure": _unconstrained(probe),
    }
    known = {name: value for name, value in found.items() if value is not None}
    fired = [name for name, value in known.items() if value > BOUNDS[name]]
    listed = ", ".join(f"{name} {100 * value:.0f} %" for name, value in known.items())
    return Judgement(
        level=Level.WARN if fired else Level.PASS,
        says=f"{len(fired)} of {len(known)} indicators fire: {listed}",
        statistic=float(len(fired)),
        threshold=1.0,
        advice=f"Signs that attacks fail for reasons of their own ({', '.join(fired)}): see the checks of those."
        if fired
        else "",
        picture=Picture(
            kind="bars",
            title="Indicators of attack failure",
            x="indicator",
            y="share",
            series=tuple(
                Series(name=name, x=(float(at),), y=(value,)) for at, (name, value) in enumerate(known.items())
            ),
        ),
        of=rows.numel(),
    )


def _unavailable(probe: Probe, rows: Tensor) -> float:
    try:
        found = probe.at_x("margin")
    except ModelError:
        return 1.0
    assert found.size is not None
    return float(((found.size == 0) | ~found.finite)[rows].double().mean())


def _unstable(probe: Probe, rows: Tensor) -> float:
    terrain = probe.terrain("margin").rows(rows)
    near, margin = terrain.region.scaled(_NEAR), Margin().value(probe.outputs[rows], probe.y[rows])
    scale = margin.abs() + probe.outputs[rows].std(1, correction=0)
    changes = [(terrain.value(near.sample(terrain.stream, draw)).value - margin).abs() for draw in range(_DRAWS)]
    return float((torch.stack(changes).double() / scale).nan_to_num(nan=0.0).clamp_max(1).mean())


def _silent(probe: Probe, rows: Tensor) -> float | None:
    try:
        found = probe.attacked("pgd(steps=20)")
    except ModelError:
        return None
    again = probe.model.logits(found.point).argmax(1) != probe.y
    return float((found.won & ~again)[rows].double().mean())


def _incomplete(probe: Probe) -> float | None:
    try:
        further = longer(probe)
    except ModelError:
        return None
    if not further.rows.numel():
        return 0.0
    best = further.values.double().nan_to_num(nan=-torch.inf).cummax(0).values
    rise = best[-1] - best[0]
    late = (best[-1] - best[-1 - _LATE]) / rise.masked_fill(rise <= 0, torch.inf)
    return float((late > _STILL).double().mean())


def _transferred(probe: Probe) -> float | None:
    rows = (probe.right & ~found_by_gradients(probe)).nonzero().squeeze(1)
    try:
        return float(through_twin(probe, rows)[rows].double().mean()) if rows.numel() else 0.0
    except ModelError:
        return None


def _unconstrained(probe: Probe) -> float | None:
    try:
        shares = curve(probe)[2]
    except NotRun:
        return None
    return 1 - shares[-1]
