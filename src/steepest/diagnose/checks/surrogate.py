"""Does the gradient of a surrogate break what the model's own could not?"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.diagnose.check import WHITE, check
from steepest.diagnose.contract import Family, Judgement
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import beyond_gradients, found_by_gradients, judgement, nothing_left, require_gradient
from steepest.models.confirmed import Confirmed
from steepest.models.model import Model
from steepest.models.peeled import behind_softmax
from steepest.models.surrogate import found_obstacles, surrogate

_ADVICE = (
    "A part of the model hides the gradient. Attack st.surrogate(model), which passes it on; points found there are "
    "judged by the model itself."
)

CALLS = ("pgd(steps=20)", "apgd(steps=20)")


@check(
    "surrogate",
    "Does the gradient of a surrogate lead further than the model's own?",
    Family.MASKED,
    cost=9,
    uses=(WHITE,),
    source="Athalye, Carlini & Wagner 2018 (BPDA); Carlini et al. 2019; Pintor et al. 2022, transfer failure",
)
def through_surrogate(probe: Probe) -> Judgement:
    """FAIL where PGD through a surrogate, judged by the model, surely breaks over 0.5 % of the gradients' survivors.

    What stronger searches along the model's own gradients break too does not count. Where nothing that a surrogate
    would change is met at x nor where the gradients' searches ended, its gradient is the model's own, and so is what
    it finds.
    """
    require_gradient(probe)
    probe.require_right()
    left = (probe.right & ~found_by_gradients(probe)).nonzero().squeeze(1)
    met = met_on_the_way(probe)
    if not left.numel():
        return nothing_left("gradients broke every example: nothing is left for a surrogate's" + met, probe.count)
    if not hides(probe):
        return nothing_left("nothing on the way hides a gradient: a surrogate's is the model's own", left.numel())
    beyond = beyond_gradients(probe, through_twin(probe, left), left.numel())
    return judgement(beyond, f"a surrogate's gradients broke {beyond.text}{met}", _ADVICE, "surrogate")


def twin_of(probe: Probe) -> Model:
    """Return the surrogate, behind the last softmax if there is one; the model itself confirms its successes."""

    def made() -> Model:
        seen = behind_softmax(probe.model, probe.x)
        return surrogate(probe.model if seen is None else seen).asked_by(Confirmed(probe.model))

    return probe.once("twin", made)


def hides(probe: Probe) -> bool:
    """Return whether the gradient of a surrogate differs from the model's own at x or where its searches ended.

    Searches start alike, with the same random numbers, so that where nothing differs they walk the same way.
    """

    def met() -> bool:
        if behind_softmax(probe.model, probe.x) is not None:
            return True
        try:
            ends = [probe.attacked(call).point for call in CALLS]
        except ModelError:  # no gradient reaches x
            return True
        return any(found_obstacles(probe.model, point) for point in (probe.x, *ends))

    return probe.once("hides", met)


def through_twin(probe: Probe, rows: Tensor) -> Tensor:
    """Return bool [N]: what PGD and APGD through the surrogate break of `rows`, which the model's own did not."""

    def searched() -> Tensor:
        found, left = torch.zeros_like(probe.right), rows if hides(probe) else rows[:0]
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
