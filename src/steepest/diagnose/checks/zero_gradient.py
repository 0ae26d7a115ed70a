"""Are gradients exactly zero, and for which objective?"""

from __future__ import annotations

from steepest.basis.errors import ModelError
from steepest.diagnose.check import check
from steepest.diagnose.checks.saturation import MOST, ascends_cross_entropy
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Remedy, Series
from steepest.diagnose.probe import Probe

CE, MARGIN = 0.05, 0.01
"""Shares of examples with a gradient of exactly zero: of cross-entropy a loss artefact, of the margin masking."""

OBJECTIVES = ("ce", "margin", "scaled-ce")


@check(
    "zero-gradient",
    "Is the gradient exactly zero at some inputs?",
    Family.MASKED,
    cost=6,
    source="Athalye, Carlini & Wagner 2018; Carlini & Wagner 2017, on cross-entropy that saturates",
)
def zero_gradient(probe: Probe) -> Judgement:
    """FAIL where max |∂m/∂x| = 0 for over 1 % of the examples right at x, WARN where that of CE is for over 5 %.

    Where the number at hand does not rest on cross-entropy, its gradient is a WARN from 50 % on.
    """
    rows = probe.require_right()
    try:
        zero = {name: (probe.at_x(name).size == 0) & probe.right & probe.at_x(name).finite for name in OBJECTIVES}
    except ModelError as error:
        raise NotRun(str(error)) from None
    share = {name: float(flags[rows].double().mean()) for name, flags in zero.items()}
    listed = ", ".join(f"{name} {100 * value:.0f} %" for name, value in share.items())
    picture = Picture(
        kind="bars",
        title="Examples whose gradient is exactly zero",
        x="objective",
        y="share",
        series=tuple(Series(name=name, x=(float(at),), y=(value,)) for at, (name, value) in enumerate(share.items())),
    )
    if share["margin"] > MARGIN:
        return Judgement(
            level=Level.FAIL,
            says=f"the margin's gradient is exactly zero at {100 * share['margin']:.0f} % of the inputs ({listed})",
            statistic=share["margin"],
            threshold=MARGIN,
            flagged=zero["margin"],
            advice="A search along gradients stands still there. A layer rounds, or saturates, on the way: attack "
            "through a surrogate, and with a search that needs no gradient.",
            remedy=Remedy(name="surrogate"),
            picture=picture,
            of=rows.numel(),
        )
    ascended = ascends_cross_entropy(probe)
    limit = CE if ascended else MOST
    level = Level.WARN if share["ce"] > limit else Level.PASS
    return Judgement(
        level=level,
        says=f"share of inputs with a gradient of exactly zero: {listed}",
        statistic=share["ce"] if level is Level.WARN else share["margin"],
        threshold=limit if level is Level.WARN else MARGIN,
        flagged=zero["ce"] if level is Level.WARN else None,
        advice="Cross-entropy saturates; the default objective, scaled-ce, does not." if level is Level.WARN else "",
        remedy=Remedy(name="scaled objective") if level is Level.WARN and ascended else None,
        picture=picture,
        of=rows.numel(),
        family=Family.LOSS if level is Level.WARN else None,
    )
