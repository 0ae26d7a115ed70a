"""Does the model answer logits?"""

from __future__ import annotations

import math

import torch

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Remedy
from steepest.diagnose.probe import Probe


@check(
    "output-range",
    "Are the outputs logits, or probabilities that saturate?",
    Family.LOSS,
    cost=1,
    source="Croce & Hein 2020, the checks of AutoAttack",
    steady=False,
)
def output_range(probe: Probe) -> Judgement:
    """WARN where the outputs are probabilities; says for how many examples they are rounded to 0."""
    if probe.model.facts.answers == "labels":
        raise NotRun("the model answers labels only")
    found = probe.outputs
    finite = found[found.isfinite()]
    span = f"from {float(finite.min()):.3g} to {float(finite.max()):.3g}" if finite.numel() else "never finite"
    if probe.model.facts.outputs != "probabilities":
        return Judgement(level=Level.PASS, says=f"the outputs are logits, {span}")
    # The handle puts the smallest normal number in the place of 0 before it takes the logarithm.
    rounded = (found <= math.log(torch.finfo(found.dtype).tiny) * (1 - 1e-6)).any(1)
    share = float(rounded.double().mean())
    told = f"; for {100 * share:.0f} % of the examples some are so small that they count as 0" if share else ""
    return Judgement(
        level=Level.WARN,
        says=f"the outputs are probabilities, and their logarithm is attacked{told}",
        statistic=share,
        threshold=0.0,
        flagged=rounded if share else None,
        advice="Hand over the logits before the softmax: a probability that is rounded to 0 or 1 has no gradient.",
        remedy=Remedy(name="behind the softmax") if share else None,
    )
