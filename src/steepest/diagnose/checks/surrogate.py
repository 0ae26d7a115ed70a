"""Does the gradient of a surrogate break what the model's own could not?"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from steepest.attacks.recipes import ATTACKS
from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, Remedy
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import LIKELY, beyond_gradients, found_by_gradients, late, require_gradient
from steepest.models.confirmed import Confirmed
from steepest.models.model import Model
from steepest.models.peeled import behind_softmax
from steepest.models.surrogate import found_obstacles, surrogate

CALLS = ("pgd(steps=20)", "apgd(steps=20)")


@check(
    "surrogate",
    "Does the gradient of a surrogate lead further than the model's own?",
    Family.MASKED,
    cost=40,
    source="Athalye, Carlini & Wagner 2018 (BPDA); Carlini et al. 2019; Pintor et al. 2022, transfer failure",
)
def through_surrogate(probe: Probe) -> Judgement:
    """FAIL where PGD through a surrogate, judged by the model, surely breaks over 0.5 % of the gradients' survivors.

    What stronger searches along the model's own gradients break too does not count.
    """
    require_gradient(probe)
    probe.require_right()
    left = (probe.right & ~found_by_gradients(probe)).nonzero().squeeze(1)
    met = met_on_the_way(probe)
    if not left.numel():
        return Judgement(
            level=Level.PASS,
            says="gradients broke every example: nothing is left for a surrogate's" + met,
            statistic=0.0,
            threshold=LIKELY,
        )
    beyond = beyond_gradients(probe, through_twin(probe, left), left.numel())
    if beyond.level is Level.PASS and beyond.late:
        return late(beyond, f"a surrogate's gradients broke {beyond.text}{met}", "surrogate")
    clean = beyond.level is Level.PASS
    return Judgement(
        level=beyond.level,
        says=f"a surrogate's gradients broke {beyond.text}{met}",
        statistic=beyond.share,
        threshold=LIKELY,
        flagged=None if clean else beyond.rows,
        advice=""
        if clean
        else "A part of the model hides the gradient. Attack st.surrogate(model), which passes it on; points found "
        "there are judged by the model itself.",
        remedy=None if clean else Remedy(name="surrogate"),
        of=left.numel(),
    )


def twin_of(probe: Probe) -> Model:
    """Return the surrogate, behind the last softmax if there is one; the model itself confirms its successes."""

    def made() -> Model:
        seen = behind_softmax(probe.model, probe.x)
        return surrogate(probe.model if seen is None else seen).asked_by(Confirmed(probe.model))

    return probe.once("twin", made)


def through_twin(probe: Probe, rows: Tensor) -> Tensor:
    """Return bool [N]: what PGD and APGD through the surrogate break of `rows`."""

    def searched() -> Tensor:
        found, left = torch.zeros_like(probe.right), rows
        for call in CALLS:
            if left.numel():
                won = ATTACKS.build(call).run(probe.problem(model=twin_of(probe)).rows(left), probe.seed).won
                found[left[won]] = True
                left = left[~won]
        return found

    return probe.once("through the twin", searched)


def met_on_the_way(probe: Probe) -> str:
    """Return what hides, or could hide, gradients, as the end of a sentence."""
    obstacles = found_obstacles(probe.model, probe.x[:2])
    counted = Counter(
        f"{each.name} ({each.kind})" + (f" in {each.module}" if each.module else "") for each in obstacles
    )
    return f"; on the way: {', '.join(list(counted)[:5])}" if counted else ""
