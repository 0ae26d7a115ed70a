"""A short account in Markdown: verdict, numbers, findings; for pull requests and summaries of jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from steepest.report.contract import Claim
from steepest.report.findings import LEVELS, headline
from steepest.report.wording import at_most, bracket, budget, certified, count, interval, percent, plain, sentence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def markdown(summary: Mapping[str, Any], manifest: Mapping[str, Any], gates: Sequence[Claim] = ()) -> str:
    """Return verdict, numbers, gates and findings, the worst first; what passed is one line."""
    summary, manifest = plain(summary), plain(manifest)
    return "\n".join(
        [*_head(summary), "", *_numbers(summary), *_gates(gates), *_findings(summary), *_end(summary, manifest)]
    )


def escaped(words: object) -> str:
    r"""Return words in which nothing is Markdown or HTML.

    >>> escaped("a|b <i>")
    'a\\|b \\<i\\>'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(str(words).split()))


def _head(summary: Mapping[str, Any]) -> list[str]:
    head = headline(summary)
    bound = "at most " if at_most(summary) else ""
    robust = f"## Robust accuracy {bound}{percent(summary['robust_accuracy'])} under {escaped(budget(summary))}"
    lines = [robust, "", f"**Verdict: {escaped(head.word)}.** {head.means}", ""]
    lines += [f"- {escaped(reason)}" for reason in head.reasons]
    if head.next:
        lines += ["", f"Next: {escaped(head.next)}"]
    if head.first:
        lines += ["", f"{escaped(head.first)}; then the search was mended: {escaped('; '.join(head.changes))}."]
    return lines


def _numbers(summary: Mapping[str, Any]) -> list[str]:
    rows = [
        ("clean accuracy", percent(summary["clean_accuracy"]), interval(summary.get("clean_interval"))),
        ("robust accuracy", percent(summary["robust_accuracy"]), interval(summary.get("robust_interval"))),
    ]
    if certified(summary):
        rows.append(("certified accuracy, at least", percent(summary["certified_accuracy"]), ""))
    if said := bracket(summary):
        rows.append(("bracket", said, ""))
    lines = [f"| of {count(summary['n'])} examples | | 95 % interval |", "|---|---|---|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _gates(gates: Sequence[Claim]) -> list[str]:
    if not gates:
        return []
    return [
        "",
        "| gate | |",
        "|---|---|",
        *(f"| {escaped(g.text)} | {'holds' if g.holds else escaped(g.says)} |" for g in gates),
    ]


def _findings(summary: Mapping[str, Any]) -> list[str]:
    found = list(summary.get("findings") or [])
    worst = sorted((each for each in found if each["level"] != "pass"), key=lambda each: LEVELS.index(each["level"]))
    passed = [f"`{each['check']}`" for each in found if each["level"] == "pass"]
    lines = ["", "| level | check | what it found |", "|---|---|---|"] if worst else []
    lines += [f"| {each['level'].upper()} | `{each['check']}` | {escaped(sentence(each['says']))} |" for each in worst]
    return [*lines, *(["", f"Passed: {', '.join(passed)}."] if passed else [])]


def _end(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    version = (manifest.get("versions") or {}).get("steepest")
    lines = ["", f"Measured by steepest{f' {escaped(version)}' if version else ''}."]
    command = str(summary.get("command") or "").replace("```", "` ` `")
    return [*lines, "", "```", command, "```", ""] if command else [*lines, ""]
