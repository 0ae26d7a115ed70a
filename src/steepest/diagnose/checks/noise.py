"""Do random points break what one step of FGSM, and then any gradient, could not?"""

from __future__ import annotations

import torch

from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, Price, check
from steepest.diagnose.contract import Family, Judgement
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import (
    affordable,
    beyond_gradients,
    found_by_gradients,
    judgement,
    nothing_left,
    require_gradient,
    searched,
)

_POINTS = 64
_COST = Price(passes=_POINTS, least=16)
_ADVICE = (
    "Blind search finds what gradients miss: they point nowhere. Attack with square or relay, and through a surrogate "
    "of the model."
)


@check(
    "noise",
    "Do random points of the budget break what gradients could not?",
    Family.MASKED,
    cost=_COST,
    uses=(WHITE,),
    source="Athalye, Carlini & Wagner 2018; Carlini et al. 2019",
)
def noise(probe: Probe) -> Judgement:
    """FAIL where random corners and uniform points surely break over 0.5 % of what neither FGSM nor more steps broke.

    What FGSM alone missed is said, and judged elsewhere: one step is no search.
    """
    require_gradient(probe)
    probe.require_right()
    try:
        missed = probe.right & ~probe.broken("fgsm")
    except ModelError:  # no gradient reaches x
        missed = probe.right
    rows = missed.nonzero().squeeze(1)[: _COST.examples(probe)]
    if not rows.numel():
        return nothing_left("FGSM broke every example: nothing is left for random points", probe.count)
    points = affordable(probe, 0.2, rows, least=_POINTS, most=512)
    found = torch.zeros_like(missed)
    found[rows] = searched(probe, f"noise(points={points})", rows).won
    beyond = beyond_gradients(probe, found & ~found_by_gradients(probe), rows.numel())
    says = f"{points} random points each broke {int(found.sum())} examples that FGSM could not, {beyond.text}"
    return judgement(beyond, says, _ADVICE, "gradient-free first")
