"""Does a search that needs no gradient break what gradients could not?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.attacks.fitting import admits
from steepest.attacks.recipes import ATTACKS
from steepest.basis.shares import interval
from steepest.budgets.catalogue import kind_of
from steepest.diagnose.check import WHITE, Price, check
from steepest.diagnose.contract import Family, Judgement, Level, Remedy
from steepest.diagnose.probe import Climbed, Probe
from steepest.diagnose.searches import (
    affordable,
    beyond_gradients,
    found_by_gradients,
    judgement,
    nothing_left,
    require_gradient,
    searched,
)

_QUERIES = 128
_COST = Price(passes=_QUERIES, least=16)

RUNG = 0.05
"""A share of what entered that a stage without gradients must surely have broken: relay climbs, so it finds a few."""

_REMEDY = "gradient-free first"
_ADVICE = (
    "Gradients do not lead where examples are. Attack with square or relay first, and through a surrogate of the model."
)


@check(
    "gradient-free",
    "Does a search without gradients break what gradients could not?",
    Family.MASKED,
    cost=_COST,
    uses=(WHITE,),
    source="Athalye, Carlini & Wagner 2018; Carlini et al. 2019; Andriushchenko et al. 2020, the search",
)
def gradient_free(probe: Probe) -> Judgement:
    """FAIL where Square, or SPSA where it does not serve, surely breaks over 0.5 % of the gradients' survivors.

    What stronger searches along gradients break too does not count. Also FAIL where a stage of the audit that needs no
    gradient surely broke over 5 % of what its gradients had left.
    """
    require_gradient(probe)
    rows = probe.require_right()
    traced = None if probe.traces is None else _of_stages(probe.traces.rungs)
    if traced is not None:
        return traced
    left = probe.right & ~found_by_gradients(probe)
    asked = left.nonzero().squeeze(1)[: _COST.examples(probe)]
    if not asked.numel():
        return nothing_left(f"gradients broke all {rows.numel()} examples: nothing is left for others", rows.numel())
    call, found = _without_gradients(probe, asked)
    beyond = beyond_gradients(probe, found, asked.numel())
    return judgement(beyond, f"{call.partition('(')[0]} broke {beyond.text}", _ADVICE, _REMEDY)


def _without_gradients(probe: Probe, rows: Tensor) -> tuple[str, Tensor]:
    """Return the search and bool [N]: what it broke."""
    square = admits(", ".join(ATTACKS.build("square").budgets), kind_of(probe.budget))
    queries = affordable(probe, 0.6, rows, least=_QUERIES, most=1024)
    call = f"square(queries={queries}, rescale=True)" if square else f"spsa(steps={max(4, queries // 33)}, samples=16)"
    found = torch.zeros_like(probe.right)
    found[rows] = searched(probe, call, rows).won
    return call, found


def _of_stages(rungs: Sequence[Climbed]) -> Judgement | None:
    """Judge what the audit's own stages did; None where they show no sign."""
    for at, rung in enumerate(rungs):
        before = [each for each in rungs[:at] if not each.free]
        if not rung.free or not before or rung.broken < 2:
            continue
        if interval(rung.broken, rung.entered)[0] > RUNG:
            return Judgement(
                level=Level.FAIL,
                says=f"the stage {rung.name} broke {rung.broken} of {rung.entered} examples of the audit that "
                f"{len(before)} stages of gradients could not",
                statistic=rung.broken / rung.entered,
                threshold=RUNG,
                advice=_ADVICE,
                remedy=Remedy(name=_REMEDY),
                of=rung.entered,
            )
    return None
