"""Does the model answer the same question alike?"""

from __future__ import annotations

import math

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level, Picture, Remedy, Series
from steepest.diagnose.probe import Probe
from steepest.diagnose.repeats import DRAWS, repeats, stays

APART = 1e-4
"""Kernels differ by 1e−6 of the outputs; noise that is meant, by more than this share."""


@check(
    "randomness",
    "Does the same question get the same answer?",
    Family.STOCHASTIC,
    cost=6,
    source="Athalye, Carlini & Wagner 2018; Croce & Hein 2020, the checks of AutoAttack",
    steady=False,
)
def randomness(probe: Probe) -> Judgement:
    """FAIL where five answers with different seeds differ by over 1e−4 of the outputs, or in how many are right."""
    found = repeats(probe)
    spread, steady = float(found.drawn.max()), stays(found)
    worst = max(spread, float(found.kept.max()))
    differs = spread > APART or len(set(found.right)) > 1
    bad = differs or not steady
    says = (
        f"{DRAWS} answers with different seeds differ by up to {spread:.2g} of the largest output; "
        f"{min(found.right)} to {max(found.right)} of {probe.count} are right"
    )
    if not steady:
        says += f"; with the same random numbers too, after {found.asked} questions: the model keeps a state"
    elif not bad and probe.model.facts.deterministic is False:
        says += ", though the model answered differently when it was loaded"
    doubtful = not bad and probe.model.facts.deterministic is False
    return Judgement(
        level=Level.FAIL if bad else Level.WARN if doubtful else Level.PASS,
        says=says,
        statistic=worst if math.isfinite(worst) else None,
        threshold=APART,
        flagged=(found.drawn > APART) | (found.kept > APART) if bad else None,
        advice=_advice(steady=steady) if bad or doubtful else "",
        remedy=Remedy(name="expectation", parameters={"draws": 20}) if bad and steady else None,
        picture=Picture(
            kind="bars",
            title="Right at x, by draw",
            x="draw",
            y="examples",
            series=(
                Series(name="right", x=tuple(map(float, range(DRAWS))), y=tuple(float(each) for each in found.right)),
            ),
        )
        if differs
        else None,
    )


def _advice(*, steady: bool) -> str:
    if steady:
        return (
            "A single draw says little: attack the expectation, st.expected(model, draws=20), or switch the randomness "
            "off with model.eval()."
        )
    return "Take the state out of the model, or put it back before each question; no average mends it."
