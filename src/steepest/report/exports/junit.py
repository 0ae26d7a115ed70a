"""JUnit XML, as build servers show it: one case for each gate, one for each check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from steepest.report.contract import Claim
from steepest.report.wording import bracket, plain

_NUMBERS = ("n", "budget", "clean_accuracy", "robust_accuracy", "certified_accuracy", "seed", "command")


def junit(summary: Mapping[str, Any], manifest: Mapping[str, Any], gates: Sequence[Claim] = ()) -> str:
    """Return gates and findings as test cases: a FAIL is a failure, NOT RUN is skipped, a WARN passes and is said.

    >>> junit({"verdict": {"word": "not diagnosed"}}, {}).count("<testcase")
    0
    """
    findings, root = plain(summary.get("findings") or []), ElementTree.Element("testsuites")
    suites = [("steepest.gates", [_gate(each) for each in gates]), ("steepest.checks", [_check(f) for f in findings])]
    for name, cases in suites:
        if not cases and name == "steepest.gates":
            continue
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, **_counts(cases)})
        suite.append(_properties(plain(summary)))
        suite.extend(cases)
    for key, value in _counts(list(root.iter("testcase"))).items():
        root.set(key, value)
    root.set("name", "steepest")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(cases: Sequence[ElementTree.Element]) -> dict[str, str]:
    seconds = sum(float(case.get("time", 0)) for case in cases)
    numbers = {word: sum(case.find(tag) is not None for case in cases) for word, tag in _TAGS.items()}
    return {"tests": str(len(cases)), **{word: str(n) for word, n in numbers.items()}, "time": f"{seconds:.3f}"}


_TAGS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _properties(summary: Mapping[str, Any]) -> ElementTree.Element:
    held = ElementTree.Element("properties")
    values = {key: summary.get(key) for key in _NUMBERS} | {"verdict": (summary.get("verdict") or {}).get("word")}
    values |= {"bracket": bracket(summary)}
    for key, value in values.items():
        if value is not None:
            ElementTree.SubElement(held, "property", name=key, value=str(value))
    return held


def _gate(claim: Claim) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname="steepest.gate", name=claim.text, time="0")
    if not claim.holds:
        ElementTree.SubElement(case, "failure", message=claim.says, type="gate").text = claim.says
    return case


def _check(found: Mapping[str, Any]) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname="steepest.check", name=str(found["check"]), time=f"{found.get('seconds') or 0:.3f}"
    )
    says, advice = str(found["says"]), str(found.get("advice") or "")
    whole = "\n".join(filter(None, (str(found["question"]), says, advice, str(found["source"]))))
    if found["level"] == "fail":
        ElementTree.SubElement(case, "failure", message=says, type=str(found["family"])).text = whole
    elif found["level"] == "not run":
        ElementTree.SubElement(case, "skipped", message=says)
    else:
        ElementTree.SubElement(case, "system-out").text = f"{str(found['level']).upper()}: {whole}"
    return case
