"""What findings ask for, made: where and how to search once more; the verdict about a point stays the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steepest.attacks.api import ObjectiveChoice
from steepest.basis.errors import unknown
from steepest.basis.streams import Stream
from steepest.basis.tensors import flat
from steepest.budgets.region import Region
from steepest.diagnose.contract import Remedy
from steepest.models.averaged import Averaged
from steepest.models.estimated import Estimated
from steepest.models.expected import Expected
from steepest.models.model import Model
from steepest.models.peeled import behind_softmax
from steepest.models.surrogate import surrogate


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """One way to search once more.

    Attributes:
        name: in the ledger.
        model: whose slopes are followed; what is found there is to be asked of the original.
        objective: what is ascended.
        free: search without gradients.
        changes: what was changed, one sentence each.
    """

    name: str
    model: Model
    objective: ObjectiveChoice
    free: bool = False
    changes: tuple[str, ...] = ()

    def asked(self, model: Model, name: str, change: str) -> Mended:
        """Return the way with another model in its place, and one more sentence."""
        return replace(self, model=model, name=name, changes=(*self.changes, change))


SCALED, PEELED, EXPECTATION, SURROGATE = "scaled objective", "behind the softmax", "expectation", "surrogate"
AVERAGED, ESTIMATED, FREE = "averaged gradients", "estimated gradients", "gradient-free first"
STEPS = "more steps"

REMEDIES = {
    SCALED: "ascend scaled-ce, which does not saturate, instead of the objective asked for",
    PEELED: "search in the logits behind the last softmax, whose probabilities round to 0 and 1",
    EXPECTATION: "average answers and gradients over draws of the model's randomness (draws=20)",
    SURROGATE: "follow gradients through a surrogate of what rounds, saturates, is cut off or lies",
    AVERAGED: "follow the mean gradient over a neighbourhood (draws=10, radius=0.25 of the budget)",
    ESTIMATED: "follow differences of values over a wide step (samples=256, reach=0.25 of the budget)",
    FREE: "search without gradients, with the effort that gradients would have had",
    STEPS: "follow the model's own gradients with many steps, and towards several classes",
}
"""What a finding may ask for; whoever applies it says so."""


def mended(
    model: Model, objective: ObjectiveChoice, remedies: Sequence[Remedy], region: Region, stream: Stream
) -> tuple[Mended, ...]:
    """Return the ways to search once more that remedies ask for, each once, cheap ones first.

    Objective, expectation and surrogate change what is searched in, and hold for the ways that follow gradients of
    another kind: those are averaged, or estimated, in the surrogate of the expectation. Cross-entropy is never what a
    second search ascends: it may be flat where something else was seen first, as behind a softmax.

    Args:
        region: of examples whose budget is typical; widths of steps are taken from it.

    Raises:
        UsageError: an unknown remedy.
    """
    asked = {each.name: dict(each.parameters) for each in remedies}
    for name in asked:
        if name not in REMEDIES:
            raise unknown("remedy", name, REMEDIES)
    base = Mended(name="mended", model=model, objective=objective)
    if (SCALED in asked and objective != "scaled-ce") or (asked and objective == "ce"):
        base = replace(base, objective="scaled-ce", changes=(f"scaled-ce is ascended instead of {objective}",))
    seen = behind_softmax(base.model, region.x) if PEELED in asked else None
    if seen is not None:
        base = base.asked(seen, "behind the softmax", "the search sees the logits behind the last softmax")
    if SURROGATE in asked and model.facts.answers == "gradient":
        base = base.asked(surrogate(base.model), "surrogate", "gradients pass through a surrogate")
    if EXPECTATION in asked:
        draws = asked[EXPECTATION].get("draws", 20)
        change = f"answers and gradients are means over {draws} draws"
        base = base.asked(base.model.asked_by(Expected(draws)), "expectation", change)
    if STEPS in asked and not base.changes:
        base = base.asked(base.model, "more steps", "many steps follow the model's own gradients")
    ways = [base] if base.changes else []
    if FREE in asked:
        ways.append(replace(base, name="gradient-free", free=True, changes=("no gradient is used",)))
    if AVERAGED in asked:
        oracle = Averaged(**asked[AVERAGED])
        change = f"gradients are means over {oracle.draws} points within {oracle.radius:g} of the budget"
        ways.append(base.asked(base.model.asked_by(oracle), "averaged gradients", change))
    if ESTIMATED in asked:
        ways.append(_estimated(base, region, stream, **asked[ESTIMATED]))
    return tuple(ways)


def _estimated(base: Mended, region: Region, stream: Stream, samples: int = 256, reach: float = 0.25) -> Mended:
    width = reach * typical_change(region, stream)
    oracle = Estimated(samples=samples, sigma=width, draw="signs", box=region.box)
    change = f"gradients are estimated from {samples} pairs of values {2 * width:.3g} apart in each feature"
    return base.asked(base.model.asked_by(oracle), "estimated gradients", change)


def typical_change(region: Region, stream: Stream) -> float:
    """Return the root mean square by which a random corner of the region changes a feature, over all examples."""
    if not region.x.numel():
        return 0.0
    moved = flat(region.corner(stream, 0) - region.x).double()
    return float(moved.square().mean().sqrt())
