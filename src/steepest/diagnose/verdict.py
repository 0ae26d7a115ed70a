"""From findings to a verdict: the word, its reasons in order of weight, and the next thing to do."""

from __future__ import annotations

from collections.abc import Sequence

from steepest.diagnose.contract import Family, Finding, Level, Remedy, Verdict

CLEAN = "no sign of masking found"
"""The best that can be said; a model is never called robust."""

UNKNOWN = "not diagnosed"
"""The word where no check could run."""

_UNKNOWN_NEXT = "Audit it without --no-diagnose and --shard: the finished shards of an audit stay."
_NEXT = {
    Family.MASKED: "Attack again without trusting the gradient: through a surrogate of the layers named below, with "
    "averaged or estimated gradients, and with a gradient-free search (square, relay); report the lower number.",
    Family.STOCHASTIC: "Attack the expectation over the model's randomness, st.expected(model), or switch the "
    "randomness off: model.eval(); a single draw says little.",
    Family.LOSS: "Attack an objective that does not saturate, scaled-ce or margin, on logits; numbers of plain "
    "cross-entropy are void.",
    Family.UNFINISHED: "Spend more: the preset thorough, or more steps and restarts; the number still falls.",
    Family.ONE_STEP: "Judge the model by attacks of many steps only, never by FGSM; if it was trained on FGSM "
    "examples, train again with a remedy (random starts of N-FGSM, gradient alignment).",
}

_ORDER = (Family.MASKED, Family.STOCHASTIC, Family.LOSS, Family.ONE_STEP, Family.UNFINISHED)
_SEVERITY = {Level.FAIL: 0, Level.WARN: 1}
_WARNS = (Family.UNFINISHED, Family.ONE_STEP)
"""What a WARN is enough for; of the others only a FAIL."""

_EVERY = (Remedy(name="surrogate"), Remedy(name="gradient-free first"))
"""Asked for wherever gradients are masked: which check saw it first, or had the time to, should not decide."""


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Return the verdict that findings add up to.

    A FAIL gives the word of its family; a WARN that of "not converged" and "overfitted to one step" only. Of several
    the gravest counts: masked, stochastic, loss artefact, overfitted to one step, not converged. Reasons are the
    FAILs and WARNs, those of the word first. A number is believable unless a FAIL stands.

    >>> verdict([]).word
    'not diagnosed'
    """
    ran = [each for each in findings if each.level is not Level.NOT_RUN]
    if not ran:
        return Verdict(word=UNKNOWN, believable=False, reasons=(), next=_UNKNOWN_NEXT)
    signs = [each for each in ran if _is_sign(each)]
    family = next((each for each in _ORDER if any(sign.family is each for sign in signs)), None)
    bad = sorted(
        (each for each in ran if each.level in _SEVERITY),
        key=lambda each: (each.family is not family, _SEVERITY[each.level], _rank(each.family)),
    )
    return Verdict(
        word=CLEAN if family is None else family.value,
        believable=all(each.level is not Level.FAIL for each in ran),
        reasons=tuple(f"{each.check}: {each.says}" for each in bad),
        next=_next(family, bad),
        remedies=_remedies(bad, masked=family is Family.MASKED),
    )


def _is_sign(finding: Finding) -> bool:
    return finding.level is Level.FAIL or (finding.level is Level.WARN and finding.family in _WARNS)


def _rank(family: Family) -> int:
    return _ORDER.index(family) if family in _ORDER else len(_ORDER)


def _next(family: Family | None, bad: Sequence[Finding]) -> str:
    if family is not None:
        return _NEXT[family]
    if bad:
        return bad[0].advice
    return "Ask the other side: a certificate, or the option assure: a bound on what a full protocol would still find."


def _remedies(bad: Sequence[Finding], *, masked: bool) -> tuple[Remedy, ...]:
    found: dict[str, Remedy] = {}
    for remedy in (*(each.remedy for each in bad), *(_EVERY if masked else ())):
        if remedy is not None:
            found.setdefault(remedy.text, remedy)
    return tuple(found.values())
