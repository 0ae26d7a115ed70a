"""Presets: which stages an audit runs, in order of cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steepest.attacks.fitting import admits, serves
from steepest.attacks.recipes import ATTACKS
from steepest.audit.rungs import Rung
from steepest.basis.errors import UsageError, unknown
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget
from steepest.certify.api import require_served
from steepest.certify.library import CERTIFIERS

_EIGHTHS = tuple(k / 8 for k in range(1, 9))
_SIXTEENTHS = tuple(k / 16 for k in range(1, 33))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The rungs of a ladder in order of cost, and the grid of the FGSM curve in units of the largest ε.

    Attributes:
        rungs: `fgsm` shares its gradient with the curve.
        factors: the grid; refined by bisection to 1/1000 of its end.
        cost: forwards and backwards of an example that stays unbroken, as text.
    """

    name: str
    rungs: tuple[Rung, ...]
    factors: tuple[float, ...]
    cost: str


def _rung(name: str, call: str, **who: Any) -> Rung:
    return Rung(name=name, work=ATTACKS.build(call), **who)


def _proof(name: str, units: int) -> Rung:
    """Return the rung of a certifier, which asks about networks of at most so many hidden units."""
    return Rung(name=name, work=CERTIFIERS.build(name), units=units)


_COUNTED = ("l0", "pixels", "tabular")
"""Kinds of budget that count changes, where single changes do what windows of squares do for the others."""


PRESETS = {
    "quick": Preset(
        name="quick",
        rungs=(
            _rung("fgsm", "fgsm"),
            _rung("ascent", "apgd(steps=10)"),
            _rung("class 1", "apgd(steps=10, targets=1)", rank=0, closest=0.5),
            _rung("swaps", "greedy-swap(rounds=2)", kinds=_COUNTED),
            _rung("relay", "relay(rounds=1, queries=20)", closest=0.5),
        ),
        factors=_EIGHTHS,
        cost="about 40 forwards and 35 backwards an unbroken example and ε; once 10 forwards for the curve",
    ),
    "standard": Preset(
        name="standard",
        rungs=(
            _rung("fgsm", "fgsm"),
            _rung("ascent", "apgd(steps=20)"),
            _rung("class 1", "apgd(steps=20, targets=1)", rank=0),
            _proof("lipschitz-pairs", units=100_000),
            _proof("crown", units=1_000),
            _rung("class 2", "apgd(steps=20, targets=1)", rank=1, closest=0.7),
            _rung("class 3", "apgd(steps=20, targets=1)", rank=2, closest=0.5, probe=0.15, after="class 2"),
            _rung("class 4", "apgd(steps=20, targets=1)", rank=3, closest=0.3, probe=0.15, after="class 3"),
            _rung("swaps", "greedy-swap", kinds=_COUNTED),
            _rung("relay", "relay(rounds=1, climb=20)"),
            _rung("relay on", "relay(rounds=18)", probe=0, after="relay"),
            _rung("closer 1", "apgd(steps=100, targets=1)", rank=0, closest=0.1),
            _rung("closer 2", "apgd(steps=100, targets=1)", rank=1, closest=0.1),
            _rung("closer 3", "md", closest=0.1),
            _rung("closer 4", "apgd(steps=100, targets=1)", rank=0, closest=0.5, probe=0, after="closer 1"),
            _rung("closer 5", "apgd(steps=100, targets=1)", rank=1, closest=0.5, probe=0, after="closer 2"),
            _rung("sentinel", "square(queries=500, rescale=True)", probe=0.04),
        ),
        factors=_SIXTEENTHS,
        cost="about 200 forwards and 120 backwards an unbroken example and ε, 1,600 and 430 where gradients are "
        "masked; once 36 forwards for the curve",
    ),
    "thorough": Preset(
        name="thorough",
        rungs=(
            _rung("fgsm", "fgsm"),
            _rung("ascent", "apgd(steps=50, restarts=2)"),
            _rung("class 1", "apgd(steps=50, targets=1)", rank=0),
            _proof("lipschitz-pairs", units=1_000_000),
            _proof("crown", units=4_000),
            _proof("alpha-crown", units=1_000),
            *(_rung(f"class {rank + 1}", "apgd(steps=50, targets=1)", rank=rank) for rank in range(1, 9)),
            _rung("swaps", "greedy-swap(rounds=30, swaps=64)", kinds=_COUNTED),
            _rung("relay", "relay(rounds=4, climb=20)"),
            _rung("relay on", "relay(rounds=30)", probe=0.1, after="relay"),
            _rung("closer 1", "apgd(steps=100, targets=1)", rank=0, closest=0.3),
            _rung("closer 2", "apgd(steps=100, targets=1)", rank=1, closest=0.3),
            _rung("closer 3", "md(steps=100)", closest=0.3),
            _rung("sentinel", "square", probe=0.1),
        ),
        factors=_SIXTEENTHS,
        cost="about 1,500 forwards and 760 backwards an unbroken example and ε, 3,700 and 1,100 where gradients are "
        "masked; once 36 forwards for the curve",
    ),
}


_EXAMPLES = {"scores": "noise(points=100), square(queries=1000)", "labels": "noise(points=100)"}


def preset_of(name: str) -> Preset:
    """Return the preset called `name`.

    Raises:
        UsageError: no such preset; near matches are offered.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


def parse_attacks(text: str) -> tuple[str, ...]:
    """Split "fgsm, pgd(steps=50, restarts=2)" at the commas outside parentheses, and check every name.

    Raises:
        UsageError: an unknown attack or argument, or none at all.

    >>> parse_attacks("fgsm, pgd(steps=50, restarts=2)")
    ('fgsm', 'pgd(steps=50, restarts=2)')
    """
    calls = _split(text)
    if not calls:
        raise UsageError(f"--attacks {text!r} names none: give names of `steepest list attacks`, separated by commas.")
    for call in calls:
        ATTACKS.build(call)
    return calls


def _split(text: str) -> tuple[str, ...]:
    return tuple(call.strip() for call in re.split(r",(?![^(]*\))", text) if call.strip())


def rungs_of(attacks: str | None, preset: str, budget: Budget, gives: str) -> tuple[tuple[Rung, ...], tuple[str, ...]]:
    """Return the rungs of the attacks that the user named, or else the preset's, and what must be said of them.

    A preset leaves out the rungs that do not serve the budget and says so. Rungs that need more than the model answers
    are refused: left out, they would look like robustness.

    Args:
        gives: "gradient", "scores" or "labels".

    Raises:
        UsageError: an unknown name; or names such rungs, the attacks that the model can answer, and what to write.
    """
    rungs = _named(parse_attacks(attacks)) if attacks else preset_of(preset).rungs
    beyond = [rung.name for rung in rungs if rung.attack is not None and not serves(rung.attack.needs, gives)]
    if beyond:
        able = [entry.name for entry in ATTACKS if serves(entry.facts["needs"], gives)]
        where = "the attacks contain" if attacks else f"the preset {preset!r} contains"
        lent = ", or lend the model an estimated gradient: st.estimated(model)" if gives == "scores" else ""
        raise UsageError(
            f"{where} {', '.join(beyond)}, which the model cannot answer: it gives {gives} only. Name attacks that it "
            f"can answer ({', '.join(able)}), e.g. attacks={_EXAMPLES[gives]!r}{lent}."
        )
    if attacks:
        return rungs, ()
    kind = kind_of(budget)
    meant = tuple(rung for rung in rungs if not rung.kinds or kind in rung.kinds)
    fit = tuple(rung for rung in meant if admits(", ".join(rung.work.budgets) or "any", kind))
    # That a certifier serves some budgets only takes nothing from the attacks.
    lost = [rung for rung in meant if rung not in fit and rung.attack is not None]
    return fit, tuple(f"{rung.name} does not serve {kind} and was left out" for rung in lost)


def sized(rungs: tuple[Rung, ...], methods: str, budget: Budget) -> tuple[Rung, ...]:
    """Return the rungs of an audit that also measures sizes: certifiers before its attacks, the smallest success after.

    Args:
        methods: names of `steepest list certifiers`, with arguments if wanted, separated by commas.

    Raises:
        UsageError: an unknown certifier, none, or one that does not serve the budget.
    """
    calls = _split(methods)
    if not calls:
        raise UsageError(f"--method {methods!r} names none: give names of `steepest list certifiers`, with commas.")
    names = [call.partition("(")[0].strip() for call in calls]
    made = [CERTIFIERS.build(call) for call in calls]
    for each in made:
        require_served(each, budget)
    proofs = (
        Rung(name=call if names.count(name) > 1 else name, work=work, around=True)
        for call, name, work in zip(calls, names, made, strict=True)
    )
    return (*proofs, *(rung for rung in rungs if rung.certifier is None), _rung("nearest", "fmn", around=True))


def _named(calls: tuple[str, ...]) -> tuple[Rung, ...]:
    """Return a rung for each call; a name that is used twice gets its arguments, to tell them apart."""
    names = [call.partition("(")[0].strip() for call in calls]
    return tuple(_rung(call if names.count(name) > 1 else name, call) for call, name in zip(calls, names, strict=True))
