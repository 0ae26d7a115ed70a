"""Presets: which stages an audit runs, in order of cost."""

from __future__ import annotations

import re
from dataclasses import dataclass

from steepest.attacks.contract import Attack
from steepest.attacks.fitting import serves
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import UsageError, unknown

_EIGHTHS = tuple(k / 8 for k in range(1, 9))
_SIXTEENTHS = tuple(k / 16 for k in range(1, 33))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A list of attacks in order of cost, and the grid of the FGSM curve in units of the largest ε.

    Attributes:
        attacks: calls of the catalogue; `fgsm` shares its gradient with the curve.
        factors: the grid; refined by bisection to 1/1000 of its end.
        cost: forwards and backwards of an example that stays unbroken, as text.
    """

    name: str
    attacks: tuple[str, ...]
    factors: tuple[float, ...]
    cost: str


PRESETS = {
    "quick": Preset(
        name="quick",
        attacks=("fgsm", "pgd(steps=10, start='uniform')", "noise(points=8)"),
        factors=_EIGHTHS,
        cost="at most 40 forwards and 20 backwards an example and ε",
    ),
    "standard": Preset(
        name="standard",
        attacks=(
            "fgsm",
            "pgd(steps=20, start='uniform')",
            "pgd(steps=50, restarts=5, start='uniform')",
            "noise(points=100)",
        ),
        factors=_SIXTEENTHS,
        cost="about 420 forwards and 270 backwards an example and ε",
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
    calls = tuple(call.strip() for call in re.split(r",(?![^(]*\))", text) if call.strip())
    if not calls:
        raise UsageError(f"--attacks {text!r} names none: give names of `steepest list attacks`, separated by commas.")
    for call in calls:
        ATTACKS.build(call)
    return calls


def calls_of(attacks: str | None, preset: str, gives: str) -> tuple[str, ...]:
    """Return the calls that the user named, or else the preset's.

    Stages that need more than the model answers are refused: left out silently, they would look like robustness.

    Args:
        gives: "gradient", "scores" or "labels".

    Raises:
        UsageError: an unknown name; or names such stages, the attacks that the model can answer, and what to write.
    """
    calls = parse_attacks(attacks) if attacks else preset_of(preset).attacks
    beyond = [call for call in calls if not serves(ATTACKS.build(call).needs, gives)]
    if not beyond:
        return calls
    able = [entry.name for entry in ATTACKS if serves(entry.facts["needs"], gives)]
    where = "the attacks contain" if attacks else f"the preset {preset!r} contains"
    lent = ", or lend the model an estimated gradient: st.estimated(model)" if gives == "scores" else ""
    raise UsageError(
        f"{where} {', '.join(beyond)}, which the model cannot answer: it gives {gives} only. Name attacks that it can "
        f"answer ({', '.join(able)}), e.g. attacks={_EXAMPLES[gives]!r}{lent}."
    )


def stages_of(attacks: tuple[str, ...]) -> tuple[tuple[str, Attack], ...]:
    """Return (name, recipe) for each call; a name that is used twice gets its arguments, to tell them apart."""
    names = [call.partition("(")[0].strip() for call in attacks]
    return tuple(
        (call if names.count(name) > 1 else name, ATTACKS.build(call))
        for call, name in zip(attacks, names, strict=True)
    )
