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
        what="inputs rounded to 16 levels",
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
        what="inputs rounded to 5 levels",
        group="masking",
        make=_around(wrappers.Quantised, 5),
        control=_around(wrappers.Quantised, None),
        flagged_by=_BLIND,
        remedy="straight-through gradients for the rounding",
    ),
    Defence(
        name="thermometer",
        what="each input as indicators of the levels that it exceeds",
        group="masking",
        make=lambda _: trained.thermometer(0.0),
        control=lambda _: trained.thermometer(1.0),
        flagged_by=("gradients",),
        remedy="ramps in the place of the indicators",
        own_weights=True,
    ),
    Defence(
        name="detached",
        what="the input is cut off the graph",
        group="masking",
        make=_around(wrappers.Detached, True),
        control=_around(wrappers.Detached, False),
        flagged_by=("gradients",),
        remedy="leave the input on the graph, or estimate the gradient",
    ),
    Defence(
        name="decision-only",
        what="answers the predicted class as a one-hot vector",
        group="masking",
        make=_around(wrappers.Hard, True),
        control=_around(wrappers.Hard, False),
        flagged_by=("gradients", "output-range"),
        remedy="attack the logits, or by decisions alone",
    ),
    Defence(
        name="compressed",
        what="coefficients of a cosine transform are rounded, as in JPEG",
        group="masking",
        make=_around(wrappers.Compressed, 0.25),
        control=_around(wrappers.Compressed, None),
        flagged_by=_BLIND,
        remedy="straight-through gradients for the compression",
    ),
    Defence(
        name="winners-only",
        what="of each layer only the largest tenth of the units passes",
        group="masking",
        make=lambda _: trained.winners(0.1),
        control=lambda _: trained.winners(1.0),
        flagged_by=("segment",),
        remedy="differences of values over the whole budget, and a search without gradients",
        own_weights=True,
    ),
    Defence(
        name="saturated",
        what="a first layer so steep that it is flat nearly everywhere",
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
        what="adds nothing, with a slope 0·∞",
        group="masking",
        make=_around(wrappers.NoSlope, 0.0),
        control=_around(wrappers.NoSlope, 1e-3),
        flagged_by=("gradients",),
        remedy="a floor under the root",
    ),
    Defence(
        name="shattered",
        what="adds a tiny wave of high frequency to the input",
        group="masking",
        make=_around(wrappers.Shattered, 0.02),
        control=_around(wrappers.Shattered, 0.0),
        flagged_by=("finite-differences", "alignment", "gradient-free"),
        remedy="differences of values over the whole budget, or a search without gradients",
        note="Slopes of random sign nearly cancel along a segment, so its residual falls with the points taken on it.",
    ),
    Defence(
        name="shattered-logit",
        what="adds a tiny wave of high frequency to the largest logit",
        group="masking",
        make=_around(wrappers.ShatteredLogit, 1e-3),
        control=_around(wrappers.ShatteredLogit, 0.0),
        flagged_by=("finite-differences", "alignment", "gradient-free"),
        remedy="differences of values over the whole budget, or a search without gradients",
        note="Slopes of random sign nearly cancel along a segment, so its residual falls with the points taken on it.",
    ),
    Defence(
        name="negated-slope",
        what="a custom backward that negates the gradient",
        group="masking",
        make=_around(wrappers.WrongSlope, -1.0),
        control=_around(wrappers.WrongSlope, 1.0),
        flagged_by=("segment", "finite-differences", "gradient-free"),
        remedy="the derivative of the forward pass, without the custom backward",
    ),
    Defence(
        name="random-slope",
        what="a custom backward that answers noise",
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
            what=f"logits times {factor:,.0f}",
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
        what="answers probabilities",
        group="loss artefact",
        make=_around(wrappers.Probabilities, 1.0),
        control=_around(wrappers.Probabilities, None),
        flagged_by=("output-range",),
        remedy="the logarithm of the outputs",
        looks_robust=False,
    ),
    Defence(
        name="sharp-probabilities",
        what="answers probabilities of logits a hundred times as large",
        group="loss artefact",
        make=_around(wrappers.Probabilities, 100.0),
        control=_around(wrappers.Probabilities, None),
        flagged_by=("output-range", "zero-gradient", "surrogate"),
        remedy="the logits before the softmax",
        note="Most outputs are exactly 0 and 1, so their logarithm says no more than the decision does.",
    ),
    *(
        Defence(
            name=f"distilled-{temperature}",
            what=f"a student distilled at temperature {temperature}, which answers logits {temperature} times as large",
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
        what="trained on single steps of FGSM, and on nothing else",
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
        what="adds Gaussian noise to the input",
        group="random or stateful",
        make=_around(wrappers.Noisy, 0.1),
        control=_around(wrappers.Noisy, 0.0),
        flagged_by=("randomness",),
        remedy="expectation over draws",
        looks_robust=False,
    ),
    Defence(
        name="dropping",
        what="leaves dropout on",
        group="random or stateful",
        make=_around(wrappers.Dropping, 0.1),
        control=_around(wrappers.Dropping, 0.0),
        flagged_by=("randomness", "batch-dependence"),
        remedy="model.eval(), or expectation over draws",
        looks_robust=False,
    ),
    Defence(
        name="batch-norm-training",
        what="leaves batch normalisation in training mode",
        group="random or stateful",
        make=lambda network: trained.in_training(network, True),
        control=lambda network: trained.in_training(network, False),
        flagged_by=("batch-dependence",),
        remedy="model.eval()",
        own_weights=True,
    ),
    Defence(
        name="counting",
        what="answers wrongly once it has been asked often",
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
        what="inputs rounded to 8 levels, with the identity for a slope",
        group="harmless surrogate",
        make=_around(wrappers.StraightThrough, 8),
        control=_around(wrappers.StraightThrough, 4096),
        flagged_by=("segment",),
        remedy="none: the surrogate gradient leads to the same points; say that it is one",
        looks_robust=False,
    ),
    Defence(
        name="median",
        what="a median filter in front",
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
        what="adds one of seven fixed vectors, chosen by a hash of the input",
        group="harmless surrogate",
        make=_around(wrappers.HashGated, 1.5),
        control=_around(wrappers.HashGated, 0.0),
        flagged_by=("segment",),
        remedy="a search that expects a value at a point, not a slope",
        looks_robust=False,
    ),
    Defence(
        name="rejecting",
        what="an eleventh class for inputs of which it is not sure",
        group="another success",
        make=_around(wrappers.Rejecting, 1.0),
        control=_around(wrappers.Rejecting, -1e4),
        flagged_by=(),
        remedy="a goal that does not count a rejected input as a success",
        looks_robust=False,
    ),
)

ZOO = {defence.name: defence for defence in (*MASKING, *ARTEFACTS, *OVERFITTED, *RANDOM, *HARMLESS)}
