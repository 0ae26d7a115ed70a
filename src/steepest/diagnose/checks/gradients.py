"""Is there a gradient at all, and is it a number?"""

from __future__ import annotations

import torch

from steepest.basis.errors import ModelError
from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Remedy
from steepest.diagnose.probe import Probe


@check(
    "gradients",
    "Does a finite gradient of the margin reach every input?",
    Family.MASKED,
    cost=2,
    source="Athalye, Carlini & Wagner 2018; Pintor et al. 2022, unavailable gradients",
    steady=False,
)
def gradients(probe: Probe) -> Judgement:
    """FAIL where autograd refuses, or an output or a gradient of any example is NaN or infinite."""
    if probe.model.facts.answers != "gradient":
        raise NotRun(f"the model answers {probe.model.facts.answers} only, as it was declared to")
    surrogate = Remedy(name="surrogate")
    try:
        found = probe.at_x("margin")
    except ModelError as error:
        return Judgement(
            level=Level.FAIL,
            says=f"no gradient reaches the input ({str(error).split(':')[0]})",
            statistic=1.0,
            threshold=0.0,
            flagged=torch.ones(probe.count, dtype=torch.bool),
            advice="Gradient attacks cannot run. Attack through a surrogate, st.surrogate(model), which passes the "
            "gradient on, or with square and hopskipjump, which need none.",
            remedy=surrogate,
        )
    lost = ~found.finite
    share = float(lost.double().mean())
    if not lost.any():
        return Judgement(level=Level.PASS, says="every gradient is a finite number", statistic=0.0, threshold=0.0)
    return Judgement(
        level=Level.FAIL,
        says=f"an output or gradient of {int(lost.sum())} of {probe.count} examples is NaN or infinite",
        statistic=share,
        threshold=0.0,
        flagged=lost,
        advice="Such examples could not be attacked, which is no robustness. Look for log, sqrt or a division at 0 in "
        "the model; until then attack through a surrogate.",
        remedy=surrogate,
    )
