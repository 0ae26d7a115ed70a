"""The broken defences, one record each."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from tests.planted.zoo import trained, wrappers
from tests.planted.zoo.record import Defence

_BLIND = ("zero-gradient", "segment", "finite-differences", "gradient-free", "surrogate")


def _around(kind: type[wrappers.Around], setting: object) -> Callable[[nn.Module], nn.Module]:
    return lambda network: kind(network, setting)


MASKING = (
    Defence(
        name="quantised-16",
        group="masking",
        make=_around(wrappers.Quantised, 16),
        control=_around(wrappers.Quantised, None),
        flagged_by=_BLIND,
        remedy="straight-through gradients for the rounding",
        epsilon=3 / 16,
        note="Rounding has no slope at any number of levels. The scans lie on these, so that whole levels of a budget "
        "count: three here, and of 0.15 two, as if that were 0.125.",
    ),
    Defence(
        name="quantised-5",
        group="masking",
        make=_around(wrappers.Quantised, 5),
        control=_around(wrappers.Quantised, None),
        flagged_by=_BLIND,
        remedy="straight-through gradients for the rounding",
    ),
    Defence(
        name="thermometer",
        group="masking",
        make=lambda _: trained.thermometer(0.0),
        control=lambda _: trained.thermometer(1.0),
        flagged_by=("gradients",),
        remedy="ramps in the place of the indicators",
        own_weights=True,
    ),
    Defence(
        name="detached",
        group="masking",
        make=_around(wrappers.Detached, True),
        control=_around(wrappers.Detached, False),
        flagged_by=("gradients",),
        remedy="leave the input on the graph, or estimate the gradient",
    ),
    Defence(
        name="decision-only",
        group="masking",
        make=_around(wrappers.Hard, True),
        control=_around(wrappers.Hard, False),
        flagged_by=("gradients", "output-range"),
        remedy="attack the logits, or by decisions alone",
    ),
    Defence(
        name="compressed",
        group="masking",
        make=_around(wrappers.Compressed, 0.25),
        control=_around(wrappers.Compressed, None),
        flagged_by=_BLIND,
        remedy="straight-through gradients for the compression",
    ),
    Defence(
        name="winners-only",
        group="masking",
        make=lambda _: trained.winners(0.1),
        control=lambda _: trained.winners(1.0),
        flagged_by=("segment",),
        remedy="gradients averaged over noise",
        own_weights=True,
    ),
    Defence(
        name="saturated",
        group="masking",
        make=lambda network: trained.saturated(network, 1000.0),
        control=lambda network: trained.saturated(network, 0.1),
        flagged_by=("zero-gradient", "gradient-free", "noise", "surrogate"),
        remedy="a smooth surrogate with the same weights, or a search without gradients",
        own_weights=True,
        note="Continuous: gradients integrate to the change, where a segment crosses its steep parts at all.",
    ),
    Defence(
        name="nan-gradient",
        group="masking",
        make=_around(wrappers.NoSlope, 0.0),
        control=_around(wrappers.NoSlope, 1e-3),
        flagged_by=("gradients",),
        remedy="a floor under the root",
    ),
    Defence(
        name="shattered",
        group="masking",
        make=_around(wrappers.Shattered, 0.02),
        control=_around(wrappers.Shattered, 0.0),
        flagged_by=("finite-differences", "alignment", "gradient-free"),
        remedy="gradients averaged over noise, or a search without gradients",
        note="Slopes of random sign nearly cancel along a segment, so its residual falls with the points taken on it.",
    ),
    Defence(
        name="shattered-logit",
        group="masking",
        make=_around(wrappers.ShatteredLogit, 1e-3),
        control=_around(wrappers.ShatteredLogit, 0.0),
        flagged_by=("finite-differences", "alignment", "gradient-free"),
        remedy="gradients averaged over noise, or a search without gradients",
        note="Slopes of random sign nearly cancel along a segment, so its residual falls with the points taken on it.",
    ),
    Defence(
        name="negated-slope",
        group="masking",
        make=_around(wrappers.WrongSlope, -1.0),
        control=_around(wrappers.WrongSlope, 1.0),
        flagged_by=("segment", "finite-differences", "gradient-free"),
        remedy="the derivative of the forward pass, without the custom backward",
    ),
    Defence(
        name="random-slope",
        group="masking",
        make=_around(wrappers.WrongSlope, None),
        control=_around(wrappers.WrongSlope, 1.0),
        flagged_by=("segment", "finite-differences", "gradient-free"),
        remedy="the derivative of the forward pass, without the custom backward",
    ),
)

ARTEFACTS = (
    *(
        Defence(
            name=f"tempered-{factor:.0e}".replace("+0", ""),
            group="loss artefact",
            make=_around(wrappers.Tempered, factor),
            control=_around(wrappers.Tempered, 10.0),
            flagged_by=("saturation", "objectives"),
            remedy="an objective that does not depend on the scale of the logits",
        )
        for factor in (1e3, 1e6)
    ),
    Defence(
        name="probabilities",
        group="loss artefact",
        make=_around(wrappers.Probabilities, 1.0),
        control=_around(wrappers.Probabilities, None),
        flagged_by=("output-range",),
        remedy="the logarithm of the outputs",
        looks_robust=False,
    ),
    Defence(
        name="sharp-probabilities",
        group="loss artefact",
        make=_around(wrappers.Probabilities, 100.0),
        control=_around(wrappers.Probabilities, None),
        flagged_by=("output-range", "zero-gradient", "noise", "gradient-free", "surrogate"),
        remedy="the logits before the softmax",
        note="Most outputs are exactly 0 and 1, so their logarithm says no more than the decision does.",
    ),
    *(
        Defence(
            name=f"distilled-{temperature}",
            group="loss artefact",
            make=lambda network, temperature=temperature: trained.distilled(network, float(temperature)),
            control=lambda network: trained.distilled(network, 1.0),
            flagged_by=("saturation", "objectives"),
            remedy="an objective that does not depend on the scale of the logits",
            own_weights=True,
        )
        for temperature in (20, 100)
    ),
)

OVERFITTED = (
    Defence(
        name="overfitted",
        group="overfitted",
        make=lambda _: trained.overfitted(0.4),
        control=lambda _: trained.overfitted(0.1),
        flagged_by=("single-step",),
        remedy="believe iterative attacks only; train on noisier or more steps",
        epsilon=0.4,
        own_weights=True,
        note="Catastrophic overfitting (Wong et al. 2020): robust to the step that it was trained on, to nothing else.",
    ),
)

RANDOM = (
    Defence(
        name="noisy",
        group="random or stateful",
        make=_around(wrappers.Noisy, 0.1),
        control=_around(wrappers.Noisy, 0.0),
        flagged_by=("randomness",),
        remedy="expectation over draws",
        looks_robust=False,
    ),
    Defence(
        name="dropping",
        group="random or stateful",
        make=_around(wrappers.Dropping, 0.1),
        control=_around(wrappers.Dropping, 0.0),
        flagged_by=("randomness", "batch-dependence"),
        remedy="model.eval(), or expectation over draws",
        looks_robust=False,
    ),
    Defence(
        name="batch-norm-training",
        group="random or stateful",
        make=lambda network: trained.in_training(network, True),
        control=lambda network: trained.in_training(network, False),
        flagged_by=("batch-dependence",),
        remedy="model.eval()",
        own_weights=True,
    ),
    Defence(
        name="counting",
        group="random or stateful",
        make=_around(wrappers.Counting, 1000),
        control=_around(wrappers.Counting, math.inf),
        flagged_by=("randomness", "batch-dependence"),
        remedy="take the state out, or put it back before each question",
        looks_robust=False,
    ),
)

HARMLESS = (
    Defence(
        name="straight-through",
        group="harmless surrogate",
        make=_around(wrappers.StraightThrough, 8),
        control=_around(wrappers.StraightThrough, 4096),
        flagged_by=("segment",),
        remedy="none: the surrogate gradient leads to the same points; say that it is one",
        looks_robust=False,
    ),
    Defence(
        name="median",
        group="harmless surrogate",
        make=lambda network: trained.smoothed_out(network, 3),
        control=lambda network: trained.smoothed_out(network, 1),
        own_weights=True,
        flagged_by=(),
        remedy="none",
        looks_robust=False,
    ),
    Defence(
        name="hash-gated",
        group="harmless surrogate",
        make=_around(wrappers.HashGated, 1.5),
        control=_around(wrappers.HashGated, 0.0),
        flagged_by=("segment",),
        remedy="a search that expects a value at a point, not a slope",
        looks_robust=False,
    ),
    Defence(
        name="rejecting",
        group="another success",
        make=_around(wrappers.Rejecting, 1.0),
        control=_around(wrappers.Rejecting, -1e4),
        flagged_by=(),
        remedy="a goal that does not count a rejected input as a success",
        looks_robust=False,
    ),
)

ZOO = {defence.name: defence for defence in (*MASKING, *ARTEFACTS, *OVERFITTED, *RANDOM, *HARMLESS)}
