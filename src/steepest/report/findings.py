"""The verdict and the findings behind it, as a page shows them: the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.report.contract import Plot
from steepest.report.plots import plot
from steepest.report.wording import count, duration, interval, measured, percent

UNKNOWN = "not diagnosed"
LEVELS = ("fail", "warn", "pass", "not run")
"""From the worst to the one that says nothing."""

_MARKS = {"fail": "✕", "warn": "!", "pass": "✓", "not run": "–"}
_IDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One finding in words.

    Attributes:
        level, mark: the level's word, and a sign beside it, so that nobody depends on colour.
        judged: statistic against threshold; empty where there is none.
        examples: which ones, and of how many; empty where none stands out.
        plot: None where the check kept no numbers for one.
    """

    check: str
    level: str
    mark: str
    question: str
    says: str
    judged: str
    examples: str
    advice: str
    remedy: str
    sign: str
    source: str
    cost: str
    plot: Plot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """How far the number can be believed.

    Attributes:
        tone: "good", "warn" (no check failed, some warned), "bad" or "open" (nothing was diagnosed).
        means: what the word says of the number, in one sentence.
        first: the number before the mending, in one sentence; None where nothing was mended.
    """

    word: str
    tone: str
    means: str
    reasons: tuple[str, ...]
    next: str
    first: str | None
    changes: tuple[str, ...]
    notes: tuple[str, ...]


def headline(summary: Mapping[str, Any]) -> Headline:
    """Return the verdict of a run or of a diagnosis; "not diagnosed" where there is none."""
    found = summary.get("verdict") or {"word": UNKNOWN, "believable": False, "reasons": [], "next": ""}
    word = str(found["word"])
    tone = "open" if word == UNKNOWN else "bad" if not found["believable"] else "warn" if found["reasons"] else "good"
    mended = summary.get("mended")
    notes = summary.get("diagnosis_notes") or ([] if "clean_accuracy" in summary else summary.get("notes") or [])
    return Headline(
        word=word,
        tone=tone,
        means=_MEANS[tone],
        reasons=tuple(str(reason) for reason in found["reasons"]),
        next=str(found["next"]),
        first=None if mended is None else _first(mended["first"]),
        changes=() if mended is None else tuple(str(change) for change in mended["changes"]),
        notes=tuple(str(note) for note in notes),
    )


_MEANS = {
    "good": "No check speaks against the number; that is no proof.",
    "warn": "No check failed, but some warn; see what they say before you rest on the number.",
    "bad": "A check failed: do not rest on this number before the next step below is done.",
    "open": "No check has judged how far the number can be believed.",
}


def _first(first: Mapping[str, Any]) -> str:
    share, (low, high) = first["robust_accuracy"], first["robust_interval"]
    return f"As first measured {percent(share)} ({interval((low, high))})"


def ranked(findings: Sequence[Mapping[str, Any]]) -> dict[str, list[Shown]]:
    """Return the findings by level, the worst level first, each level in the panel's order; empty levels too."""
    shown = [_shown(each, f"finding-{number}") for number, each in enumerate(findings)]
    return {level: [each for each in shown if each.level == level] for level in LEVELS}


def _shown(found: Mapping[str, Any], key: str) -> Shown:
    level, remedy = str(found["level"]), found.get("remedy")
    picture = found.get("picture")
    return Shown(
        check=str(found["check"]),
        level=level,
        mark=_MARKS.get(level, ""),
        question=str(found["question"]),
        says=str(found["says"]),
        judged=_judged(found),
        examples=_examples(found),
        advice=str(found.get("advice") or ""),
        remedy="" if remedy is None else _call(remedy),
        sign=str(found["family"]),
        source=str(found["source"]),
        cost=_cost(found),
        plot=None if picture is None else plot(picture, key),
    )


def _judged(found: Mapping[str, Any]) -> str:
    value, bound = found.get("statistic"), found.get("threshold")
    if not measured(value):
        return ""
    return f"statistic {value:.4g}, threshold {bound:.4g}" if measured(bound) else f"statistic {value:.4g}"


def _examples(found: Mapping[str, Any]) -> str:
    ids = list(found.get("examples") or [])
    if not ids:
        return ""
    more = f", … ({len(ids)} kept in the records)" if len(ids) > _IDS else ""
    return f"{', '.join(str(each) for each in ids[:_IDS])}{more}; {count(found.get('of'))} were measured"


def _call(remedy: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{key}={value!r}" for key, value in (remedy.get("parameters") or {}).items())
    return f"{remedy['name']}({inner})" if inner else str(remedy["name"])


def _cost(found: Mapping[str, Any]) -> str:
    passes = f"{count(found.get('forwards'))} forwards, {count(found.get('backwards'))} backwards"
    return f"{passes}, {duration(found.get('seconds'))}"
