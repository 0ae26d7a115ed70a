"""SARIF 2.1.0, as code scanning reads it: every check is a rule with help, every FAIL and WARN a result."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from steepest.report.contract import Claim
from steepest.report.wording import plain, sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS = {"fail": "error", "warn": "warning"}
_GATE = "gate"


def sarif(summary: Mapping[str, Any], manifest: Mapping[str, Any], gates: Sequence[Claim] = ()) -> str:
    """Return FAILs and broken gates as errors and WARNs as warnings, at the model's file; what passed is no result.

    Checks that could not run are notifications of the tool, so that they are not taken for passed ones.
    """
    findings, broken = plain(summary.get("findings") or []), [each for each in gates if not each.holds]
    place = _place(manifest)
    results = [_result(_GATE, "error", each.says, each.text, place) for each in broken]
    results += [
        _result(str(found["check"]), _LEVELS[found["level"]], _message(found), "", place)
        for found in findings
        if found["level"] in _LEVELS
    ]
    version = (manifest.get("versions") or {}).get("steepest")
    driver = {"name": "steepest", "rules": [_rule(each) for each in findings] + ([_gate_rule()] if gates else [])}
    if version:
        driver["semanticVersion"] = str(version)
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _silent(findings)}],
        "results": results,
        "properties": {
            "verdict": (summary.get("verdict") or {}).get("word"),
            "robustAccuracy": summary.get("robust_accuracy"),
            "certifiedAccuracy": summary.get("certified_accuracy"),
            "bracket": summary.get("bracket"),
        },
    }
    whole = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _rule(found: Mapping[str, Any]) -> dict[str, Any]:
    advice = str(found.get("advice") or "Nothing is to be done where it passes.")
    return {
        "id": str(found["check"]),
        "name": str(found["check"]),
        "shortDescription": {"text": str(found["question"])},
        "fullDescription": {"text": f"{found['question']} A failure is a sign of: {found['family']}."},
        "help": {"text": f"{advice} Source: {found['source']}.", "markdown": f"{advice}\n\nSource: {found['source']}."},
        "properties": {"tags": ["robustness", str(found["family"])], "precision": "high"},
    }


def _gate_rule() -> dict[str, Any]:
    return {
        "id": _GATE,
        "name": _GATE,
        "shortDescription": {"text": "Does the run keep the rules that the build demands?"},
        "fullDescription": {"text": "A gate compares a measured accuracy with the least that is accepted."},
        "help": {"text": "Train for more robustness, or lower the gate.", "markdown": "Train for more robustness."},
        "properties": {"tags": ["robustness", _GATE], "precision": "very-high"},
    }


def _result(rule: str, level: str, says: str, told: str, place: str) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": says},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": place}, "region": {"startLine": 1, "startColumn": 1}}}
        ],
        # Of the question, not of its numbers: the same finding in the next run is the same alert.
        "partialFingerprints": {"steepest/v1": sha256(f"{rule}\0{told}\0{place}".encode()).hexdigest()[:32]},
    }


def _message(found: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (sentence(found["says"]), str(found.get("advice") or ""))))


def _silent(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "level": "note",
            "message": {"text": f"The check {each['check']} could not run: {each['says']}"},
            "associatedRule": {"id": str(each["check"])},
        }
        for each in findings
        if each["level"] == "not run"
    ]


def _place(manifest: Mapping[str, Any]) -> str:
    """The model's file, as a path that a repository may hold; a factory's name is left out."""
    source = str((manifest.get("model") or {}).get("source") or "model")
    path = re.sub(r":\w+$", "", source).replace("\\", "/").split(" ")[0]
    return re.sub(r"[^\w./~-]", "_", path).lstrip("/") or "model"
