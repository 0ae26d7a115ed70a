"""What other tools read: JUnit, SARIF, Markdown and a model card, each by the rules of its reader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from steepest.report.contract import Claim
from steepest.report.exports import EXPORTS
from steepest.report.exports.card import card
from steepest.report.exports.junit import junit
from steepest.report.exports.markdown import markdown
from steepest.report.exports.sarif import sarif
from tests.app import findings as made
from tests.app.material import ASK, QUICK, answered, asked_json, refused, steepest
from tests.app.test_report_page import NAMES, manifest, summary

GATES = (
    Claim(text="clean>0.9", holds=True),
    Claim(text="robust>=0.5", holds=False, says="gate failed: robust is 0.4230"),
)


def whole() -> dict[str, Any]:
    return {**summary(NAMES), **made.diagnosed()}


def test_junit_counts_failures_and_skips() -> None:
    root = ElementTree.fromstring(junit(whole(), manifest(NAMES), GATES))
    assert root.tag == "testsuites"
    counts = {key: int(root.get(key, "-1")) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 7, "failures": 2, "errors": 0, "skipped": 1}
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert all(case.get("classname") and float(case.get("time", "")) >= 0 for case in cases.values())
    bad, gate = cases["blind"].find("failure"), cases["robust>=0.5"].find("failure")
    assert bad is not None and bad.get("type") == "masked" and made.HOSTILE in bad.get("message", "")
    assert gate is not None and "0.4230" in gate.get("message", "")
    assert cases["absent"].find("skipped") is not None
    shaky = cases["shaky"].find("system-out")
    assert shaky is not None and (shaky.text or "").startswith("WARN") and cases["shaky"].find("failure") is None
    values = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert values["verdict"] == "masked" and values["robust_accuracy"] == "0.423"


def test_no_control_character_breaks_xml() -> None:
    odd = {**whole(), "findings": [made.finding("blind", "fail", says="a\x00b\x1b[31m")]}
    assert len(list(ElementTree.fromstring(junit(odd, {})).iter("testcase"))) == 1


def test_sarif_has_what_code_scanning_requires() -> None:
    found = json.loads(sarif(whole(), {**manifest(NAMES), "model": {"source": "src/my net.py:make"}}, GATES))
    assert found["version"] == "2.1.0" and found["$schema"].endswith("sarif-2.1.0.json")
    (run,) = found["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "steepest" and driver["semanticVersion"] == "0.1.0"
    rules = {rule["id"]: rule for rule in driver["rules"]}
    assert len(rules) == len(driver["rules"]) == 6
    for rule in rules.values():
        assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
    assert [(each["ruleId"], each["level"]) for each in run["results"]] == [
        ("gate", "error"),
        ("shaky", "warning"),
        ("blind", "error"),
    ]
    for each in run["results"]:
        assert each["message"]["text"] and each["ruleId"] in rules
        (location,) = each["locations"]
        place = location["physicalLocation"]
        assert re.fullmatch(r"[\w./~-]+", place["artifactLocation"]["uri"]) and place["region"]["startLine"] == 1
        assert len(each["partialFingerprints"]["steepest/v1"]) == 32
    said = run["invocations"][0]["toolExecutionNotifications"]
    assert [each["associatedRule"]["id"] for each in said] == ["absent"]


def test_the_same_finding_is_the_same_alert_whatever_its_numbers() -> None:
    def prints(**more: Any) -> list[str]:
        run = json.loads(sarif({**whole(), "findings": [made.finding("blind", "fail", **more)]}, manifest(NAMES)))[
            "runs"
        ]
        return [each["partialFingerprints"]["steepest/v1"] for each in run[0]["results"]]

    assert prints() == prints(says="another number") != []


def test_markdown_has_the_verdict_both_numbers_and_the_worst_first() -> None:
    text = markdown(whole(), manifest(NAMES), GATES).replace("\u00a0", " ")
    assert text.startswith("## Robust accuracy at most 42.3 % under Linf 8/255")
    assert "**Verdict: masked.**" in text and "As first measured 61.5 %" in text
    assert text.index("| FAIL | `blind`") < text.index("| WARN | `shaky`") < text.index("| NOT RUN | `absent`")
    assert "Passed: `quiet`, `calm`." in text and "<script>" not in text and r"\|\`x\`" in text
    assert "gate failed: robust is 0.4230" in text
    rows = [line for line in text.splitlines() if line.startswith("| FAIL")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 4  # three cells, whatever is in them


def test_a_model_card_is_indexed_with_its_verdict() -> None:
    text = card(whole(), manifest(NAMES))
    _, front, body = text.split("---\n", 2)
    found = yaml.safe_load(front)
    (model,) = found["model-index"]
    assert model["name"] == NAMES[0]
    (result,) = model["results"]
    assert result["task"]["type"] == "image-classification" and result["dataset"] == {
        "name": "images.npz",
        "type": "images.npz",
    }
    clean, robust = result["metrics"]
    assert (clean["type"], clean["value"]) == ("accuracy", 0.931)
    assert robust["value"] == 0.423 and robust["name"] == "Robust accuracy (at most) under Linf 8/255"
    assert robust["args"] == {"verdict": "masked"}
    assert body.lstrip().startswith("## Robust accuracy")


def test_what_was_not_measured_is_no_number_in_a_card() -> None:
    bare = {"n": 0, "clean_accuracy": None, "robust_accuracy": None}
    assert yaml.safe_load(card(bare, {}).split("---\n")[1])["model-index"][0]["results"][0]["metrics"] is None
    for name, export in EXPORTS.items():
        assert export(bare, {}, ()), name


@pytest.mark.diagnosed
def test_audit_and_report_write_every_kind(place: Path) -> None:
    names = ("a.json", "a.xml", "a.sarif", "a.md", "a.card.md", "a.html")
    outputs = [word for name in names for word in ("-o", name)]
    result = steepest("audit", *ASK, *QUICK, "--out", "run", "--gate", "robust>=0.99", *outputs)
    assert result.exit_code == 10
    assert ElementTree.parse("a.xml").getroot().get("failures") != "0"
    assert "gate" in {each["ruleId"] for each in json.loads(Path("a.sarif").read_text())["runs"][0]["results"]}
    assert Path("a.card.md").read_text().startswith("---\n") and Path("a.md").read_text().startswith("## Robust")
    found = json.loads(Path("a.json").read_text())
    assert found == asked_json("runs", "show", "run") and found["scenery"]["ids"]
    before = {name: Path(name).read_bytes() for name in ("a.json", "a.html", "run/report.html")}
    assert answered("report", "run", *outputs).stdout.split() == list(names)
    assert {name: Path(name).read_bytes() for name in before} == before
    # A page written again has no gates: they belong to the build that asked.
    assert not [c for c in ElementTree.parse("a.xml").iter("testcase") if c.get("classname") == "steepest.gate"]
    refused("report", "run", "-o", "a.pdf", says=("'a.pdf'", ".sarif"))
    refused("report", "run", "-o", "nowhere/a.md", says=("folder that does not exist",))


@pytest.mark.parametrize("name", ["page.html", "findings.json"])
def test_diagnose_writes_a_page(place: Path, name: str) -> None:
    answered("diagnose", *ASK, "--limit", "20", "--seconds", "1", "-o", name)
    text = Path(name).read_text(encoding="utf-8")
    assert "<h2" in text and "Verdict" in text and "</html>" in text if name.endswith("html") else json.loads(text)
