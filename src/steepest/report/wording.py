"""Numbers and names as a person reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "not measured"
NONE = "–"

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]",
)


def plain(value: Any) -> Any:
    """Return `value` with every character that no page may hold replaced by U+FFFD, in nested records too.

    Control characters, lone surrogates and marks that turn the direction of writing are such characters.

    >>> plain({"name": ["a\\x00b"]})
    {'name': ['a\ufffdb']}
    """
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def short(name: Any, limit: int = 60) -> str:
    """Return a name of at most `limit` characters.

    >>> short("abcdef", 4)
    'abc…'
    """
    text = str(name)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def sentence(words: Any) -> str:
    """Return words that begin with a capital and end with a stop.

    >>> sentence("every gradient is finite")
    'Every gradient is finite.'
    """
    text = str(words).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".") if text else ""


def measured(value: Any) -> bool:
    """Return whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal and a no-break space.

    >>> percent(0.4234).replace("\u00a0", " "), percent(None)
    ('42.3 %', 'not measured')
    """
    return f"{100 * share:.1f}\u00a0%" if share is not None and measured(share) else MISSING


def interval(pair: Sequence[float] | None) -> str:
    """Return two shares as one range.

    >>> interval((0.391, 0.456)).replace("\u00a0", " ")
    '39.1–45.6 %'
    """
    if not pair or not all(measured(end) for end in pair):
        return MISSING
    return f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}\u00a0%"


def points(difference: float | None) -> str:
    """Return a difference of two shares in percentage points, with its sign.

    >>> points(-0.125).replace("\u00a0", " "), points(0.0).replace("\u00a0", " ")
    ('−12.5 points', '0.0 points')
    """
    if difference is None or not measured(difference):
        return MISSING
    text = f"{100 * difference:+.1f}"
    return f"{text.lstrip('+-') if float(text) == 0 else text.replace('-', '−')}\u00a0points"


def probability(p: float | None) -> str:
    """Return the p-value of a test.

    >>> probability(0.0312), probability(1e-9), probability(1.0)
    ('0.031', '< 0.001', '1')
    """
    if p is None or not measured(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def count(number: float | None) -> str:
    """Return a whole number with its thousands set apart.

    >>> count(12345)
    '12,345'
    """
    return f"{number:,.0f}" if number is not None and measured(number) else MISSING


def size(value: float | None) -> str:
    """Return a radius in data units; multiples of 1/255 without a short decimal are written as such.

    >>> size(8 / 255), size(0.2), size(1 / 7)
    ('8/255', '0.2', '0.1429')
    """
    if value is None or not measured(value):
        return MISSING
    steps = round(value * 255)
    brief = f"{value:.4g}"
    if 0 < steps < 255 and abs(value * 255 - steps) < 1e-4 and abs(float(brief) - value) > 1e-7:
        return f"{steps}/255"
    return brief


def duration(seconds: float | None) -> str:
    """Return a time in seconds, or in larger units from two minutes on.

    >>> duration(7.25).replace("\u00a0", " "), duration(200).replace("\u00a0", " ")
    ('7.2 s', '3 min 20 s')
    """
    if seconds is None or not measured(seconds):
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes}\u00a0min" if hours else f"{minutes}\u00a0min {rest}\u00a0s"


def budget(summary: Mapping[str, Any]) -> str:
    """Return the budget in words: `Linf 8/255` where it is one number, otherwise its own text.

    >>> budget({"budget": "Linf(0.031373)", "epsilon": 8 / 255}), budget({"budget": "Whole()"})
    ('Linf 8/255', 'the box')
    """
    text = str(summary.get("budget", "an unnamed budget"))
    if text == "Whole()":
        return "the box"
    match = re.fullmatch(r"(\w+)\(([^(),=]+)\)", text)
    return f"{match[1]} {size(summary['epsilon'])}" if match and measured(summary.get("epsilon")) else text


_BLIND = {
    "zero_gradient": "{} could not be attacked because {} gradient is exactly zero: {} counted as not broken, "
    "which is not robustness. A smooth or gradient-free search is needed there.",
    "nonfinite": "{} could not be measured because {} output or gradient is NaN or infinite: {} counted against "
    "robust accuracy, though nothing broke them. The model needs repair there.",
}


def unmeasured(summary: Mapping[str, Any]) -> int:
    """Return how many unbroken examples gave numbers that are not finite."""
    return int((summary.get("blind") or {}).get("nonfinite", 0))


def exact(summary: Mapping[str, Any]) -> bool:
    """Return whether every example is broken or proven, so that nothing is left to doubt.

    >>> exact({"robust_count": 3, "certified_count": 3}), exact({"robust_count": 3, "certified_count": None})
    (True, False)
    """
    certified = summary.get("certified_count")
    return certified is not None and certified == summary["robust_count"] and not unmeasured(summary)


def at_most(summary: Mapping[str, Any]) -> bool:
    """Return whether robust accuracy is an upper bound: all could be measured, and not all is decided."""
    return not unmeasured(summary) and not exact(summary)


def certified(summary: Mapping[str, Any]) -> str | None:
    """Return what was proven in one sentence, or None where no certifier ran.

    >>> found = {"n": 8, "robust_count": 5, "certified_count": 2, "certified_accuracy": 0.25}
    >>> print(certified(found).replace("\u00a0", " "))
    Certified accuracy is at least 25.0 %: for 2 of 8 examples it is proven that nothing inside the budget breaks them.
    """
    number = summary.get("certified_count")
    if number is None:
        return None
    share = percent(summary["certified_accuracy"])
    if exact(summary):
        return f"Every example is broken or proven ({count(number)} proven): robust accuracy is exact."
    return (
        f"Certified accuracy is at least {share}: for {count(number)} of {count(summary['n'])} examples it is proven "
        "that nothing inside the budget breaks them."
    )


def bracket(summary: Mapping[str, Any]) -> str | None:
    """Return from both sides how many examples are robust, or None where no certifier ran.

    >>> bracket({"n": 256, "bracket": {"lower": 71, "upper": 103, "exact": 210}})
    'Robust: between 71 and 103 of 256; exact for 210.'
    """
    found = summary.get("bracket")
    if found is None:
        return None
    low, high, n = count(found["lower"]), count(found["upper"]), count(summary["n"])
    between = f"{low} of {n}" if found["lower"] == found["upper"] else f"between {low} and {high} of {n}"
    return f"Robust: {between}; exact for {count(found['exact'])}."


def vacuous(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each certifier that proved nothing at the largest ε, or had nothing to say of the model.

    >>> found = {"certifiers": [{"name": "ibp", "entered": 5, "certified": 0}], "epsilon": 0.1}
    >>> vacuous(found)[0]
    'ibp proved nothing of 5 examples: its bounds are vacuous at ε = 0.1.'
    """
    asked, most = summary.get("certifiers") or [], summary.get("largest_proven")
    beyond = f"at ε = {size(summary.get('epsilon'))}"
    if most and len(asked) == 1:
        beyond += f"; the largest size that it proved of any is {size(most)}"
    said = [
        f"{each['name']} proved nothing of {count(each['entered'])} examples: its bounds are vacuous {beyond}."
        for each in asked
        if each["entered"] and not each["certified"]
    ]
    silent: dict[str, list[str]] = {}
    for each in summary.get("without_certificate") or []:
        silent.setdefault(str(each["why"]), []).append(str(each["name"]))
    return [*said, *(f"No certificate from {', '.join(names)}: {sentence(why)}" for why, names in silent.items())]


def ratios(summary: Mapping[str, Any]) -> str | None:
    """Return how far apart the smallest size that breaks and the largest that is proven lie, or None where unknown.

    >>> ratios({"ratios": {"found": 8, "quartiles": [1.0, 1.25, 2.0]}})
    'The smallest size that breaks is 1.25 times the largest that is proven (median of 8 examples; quartiles 1 and 2).'
    """
    found = summary.get("ratios") or {}
    if not found.get("quartiles"):
        return None
    low, middle, high = (f"{value:.4g}" for value in found["quartiles"])
    return (
        f"The smallest size that breaks is {middle} times the largest that is proven (median of "
        f"{count(found['found'])} example{'' if found['found'] == 1 else 's'}; quartiles {low} and {high})."
    )


def assured(summary: Mapping[str, Any]) -> str | None:
    """Return in one sentence what the full protocol found on a sample of the survivors, or None where there is none.

    >>> found = {"protocol": "p()", "drawn": 60, "survivors": 99, "broken": 0, "unmeasured": 0, "confidence": 0.95}
    >>> print(assured({"assured": {**found, "accuracy_at_least": 0.4}}).replace("\u00a0", " "))
    With 95 % confidence the full protocol would not go below 40.0 %: p() broke 0 of 60 survivors, drawn at random
    from 99.
    """
    found = summary.get("assured")
    if found is None:
        return None
    if not found["survivors"]:
        return f"No survivor was left for the full protocol, {found['protocol']}."
    below, drawn, survivors = percent(found["accuracy_at_least"]), count(found["drawn"]), count(found["survivors"])
    broke = f"{found['protocol']} broke {count(found['broken'])} of"
    rest = f"; {count(found['unmeasured'])} could not be measured." if found["unmeasured"] else "."
    if drawn == survivors:
        return f"The full protocol does not go below {below}: {broke} all {survivors} survivors{rest}"
    sure = f"With {100 * found['confidence']:.0f}\u00a0% confidence"
    sample = f"{drawn} survivors, drawn at random from {survivors}"
    return f"{sure} the full protocol would not go below {below}: {broke} {sample}{rest}"


def blind(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each way in which searches were blind."""
    found = []
    for name, number in (summary.get("blind") or {}).items():
        if number:
            words = ("its", "it is") if number == 1 else ("their", "they are")
            found.append(_BLIND[name].format(f"{count(number)} example{'' if number == 1 else 's'}", *words))
    return found


def twin(summary: Mapping[str, Any]) -> str:
    """Return what the attacks searched in, in one line; nothing where it was the model itself.

    >>> made = {"changes": ["batch-norm folded", "bfloat16"], "speedup": 1.83, "difference": 0.0031, "seconds": 7.0}
    >>> twin({"preparation": made, "unconfirmed": 2}).replace("\u00a0", " ")
    "searched in a twin: batch-norm folded, bfloat16; 1.8× faster; largest output difference 0.0031 of the largest \
output; chosen in 7.0 s; verdicts are the model's own: 2 successes of the twin were not confirmed"
    """
    found = summary.get("preparation") or {}
    if not found.get("changes"):
        return ""
    refused = summary.get("unconfirmed") or 0
    return (
        f"searched in a twin: {', '.join(found['changes'])}; {found['speedup']:.1f}× faster; largest output difference "
        f"{found['difference']:.2g} of the largest output; chosen in {duration(found['seconds'])}; verdicts are the "
        f"model's own: {count(refused)} success{' of the twin was' if refused == 1 else 'es of the twin were'} not "
        "confirmed"
    )


def warnings(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before the number: blind searches, an unsteady model, the run's notes."""
    found = blind(summary)
    model = manifest.get("model") or {}
    if model.get("deterministic") is False:
        found.append("The model answers the same question differently each time; a success may be luck.")
    if model.get("batch_independent") is False:
        found.append("An answer of the model depends on the other examples of its batch.")
    if model.get("training") is True:
        found.append("Some part of the model was in training mode.")
    return [*dict.fromkeys([*found, *(str(note) for note in summary.get("notes") or [])])]
