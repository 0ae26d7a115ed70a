"""`steepest compare`: models side by side from the command line, and their page."""

from __future__ import annotations

import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from steepest.app.compare import named
from steepest.audit.api import open_run
from steepest.basis.errors import UsageError
from steepest.report import comparison, drawing
from tests.app.conftest import Opened
from tests.app.material import QUICK, answered, asked_json, refused
from tests.app.test_report_page import HOSTILE, STYLE, Outline, luminance

THREE = ("net.py:make", "restless=net.py:restless", "net.py:one_output")
ASKED = ("--data", "data.npz", "--budget", "linf:0.05,0.1", *QUICK, "--no-diagnose")


def test_from_an_empty_folder_to_pages_and_json(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What charts look like is asked below; drawing those of every page twice takes seconds.
    monkeypatch.setattr(drawing, "_draw", lambda spec, width, height: "<svg/>")
    found = asked_json("compare", *THREE, *ASKED, "-o", "found.json", "-o", "page.html", "--out", "runs/c")
    assert json.loads((place / "found.json").read_text(encoding="utf-8")) == found
    assert [model["name"] for model in found["models"]] == ["make", "restless"]
    assert [each["name"] for each in found["failed"]] == ["one_output"] and "[2, K]" in found["failed"][0]["error"]
    assert [each["epsilon"] for each in found["pairs"][0]["sizes"]] == [0.05, 0.1]
    assert (place / "runs/c/comparison.html").read_text(encoding="utf-8") == (place / "page.html").read_text("utf-8")
    assert {entry.name for entry in (place / "runs/c").iterdir()} == {"comparison.html", "make", "restless"}
    # Each run can be repeated, and is the audit of that model alone.
    run = open_run("runs/c/make").summary
    assert run["robust_accuracy"] == found["models"][0]["robust_accuracy"]
    assert run["command"].startswith("steepest audit net.py:make data.npz") and "--out runs/c/make" in run["command"]
    assert (place / "runs/c/make/report.html").exists()
    # The command that the record gives is the one that was asked; again, it reads what is finished.
    assert found["command"].startswith("steepest compare net.py:make restless=net.py:restless net.py:one_output --data")
    before = (place / "runs/c/make/results/part-00000.parquet").stat().st_mtime_ns
    text = answered(*found["command"].split()[1:]).stdout
    assert (place / "runs/c/make/results/part-00000.parquet").stat().st_mtime_ns == before
    assert re.search(r"make +100\.0.%", text) and "one_output could not be measured" in text
    assert text.splitlines()[-1] == "runs/c/comparison.html"


def test_refusals_name_the_remedy(place: Path) -> None:
    refused("compare", "net.py:make", *ASKED, says=("1 model to compare", "steepest compare A.onnx B.onnx"))
    refused("compare", "net.py:make", "net.py:probabilities", says=("no DATA", "--data"))
    refused("compare", "a=net.py:make", "a=net.py:probabilities", *ASKED, says=("'a'", "name of its own"))
    refused("compare", "net.py:make", "net.py:whole", "--data", "data.npz", says=("no --budget", "linf:8/255"))
    refused("compare", "net.py:make", "net.py:nothing", *ASKED, says=("nothing", "make"))


def test_names_are_told_apart() -> None:
    assert named(["net.py:make", "other.py:make", "runs/make.onnx"]) == {
        "make": "net.py:make", "make-2": "other.py:make", "make-3": "runs/make.onnx",
    }  # fmt: skip
    assert list(named(["a b.onnx", "pkg.mod:net"])) == ["a-b", "net"]
    with pytest.raises(UsageError, match="'a'"):
        named(["a.onnx", "a=b.onnx"])


def record(models: int) -> dict[str, Any]:
    """A record as `steepest compare --json` prints it, with hostile names."""
    names = [HOSTILE, *(f"model {at}" for at in range(1, models))]
    difference = {"only_first": 9, "only_second": 1, "difference": 0.08, "interval": [0.02, 0.14]}
    share = {**difference, "p": 0.0215, "adjusted": 0.0645}
    radius = {"first": 0.05, "second": None, "difference": None, "interval": None}
    layers = [
        {
            "name": HOSTILE,
            "kind": "Linear",
            "flat": None,
            "fgsm": 4.5,
            "pgd": 4.2,
            "random": 2.0,
            "norm": 6.5,
            "share": 0.9,
        },
        {"name": "1", "kind": "ReLU", "flat": 0.3, "fgsm": 0.9, "pgd": 0.9, "random": None, "norm": 1.0, "share": 0.0},
    ]
    step = {"name": HOSTILE, "op": "aten.mm", "own": 1.25, "largest": 1.0, "total": 1.0, "share": 0.1}
    ceilings = {"product": 9.0, "eclipse": 7.5, "reason": "", "amplifier": HOSTILE, "loose": [step]}
    refused = {**ceilings, "product": None, "eclipse": None, "reason": f"no rule for {HOSTILE}", "loose": []}
    slopes = [{"objective": "margin", "size": 2.0, "gain": 0.25, "zero": 0.0, "reason": ""}]
    return {
        "n": 100, "budget": "Linf(0.1)", "budget_unit": "data units", "epsilon": 0.1, "preset": "quick",
        "objective": "scaled-ce", "seed": 0, "folder": "runs/c", "version": "0.1.0", "command": "steepest compare a b",
        "failed": [{"name": "late", "error": f"no {HOSTILE}"}],
        "pairs": [
            {"first": a, "second": b, "clean": share, "sizes": [{"epsilon": 0.1, **share}], "radius": radius}
            for a, b in itertools.combinations(names, 2)
        ],
        "models": [
            {
                "name": name, "source": "net.onnx", "folder": f"runs/c/{at}", "median_radius": None, "blind": {},
                "clean_accuracy": 0.9, "clean_interval": [0.8, 0.95], "robust_accuracy": 0.4 + at / 50,
                "robust_interval": [0.3, 0.5], "mended": {"first": {"robust_accuracy": 0.61}} if at == 1 else None,
                "sizes": [{"epsilon": 0.1, "robust_accuracy": 0.4 + at / 50, "robust_interval": [0.3, 0.5]}],
                "curve": [{"epsilon": e, "fgsm": 0.9 - 3 * e, "best": 0.9 - (5 - at / 5) * e} for e in (0.0, 0.1)],
                "verdict": {"word": "masked", "believable": at != 1, "reasons": ["zero-gradient: flat"], "next": ""},
                "anatomy": {
                    "count": 64, "gradients": slopes, "curved": 0.3, "kept": 1.0, "reason": "", "layers": layers,
                    "whole": {**layers[0], "name": "", "kind": "whole network"},
                    "amplifier": HOSTILE, "ceilings": refused if at == 1 else ceilings,
                },
            }
            for at, name in enumerate(names)
        ],
    }  # fmt: skip


def test_a_graph_without_modules_is_one_layer_with_a_name() -> None:
    made = record(2)
    made["models"][0]["anatomy"]["layers"] = [
        {"name": "", "kind": "GraphModule", "flat": None, "fgsm": 0.5, "pgd": 0.6, "random": 0.3}
        | {"norm": None, "share": None}
    ]
    assert "the whole network" in comparison.render(made)


def test_the_page_is_safe_structured_and_true() -> None:
    html = comparison.render(record(9))
    outline = Outline(html)
    assert not outline.open and HOSTILE not in html
    assert not [tag for tag, _, _ in outline.tags if tag in ("script", "iframe", "object", "base", "form")]
    levels = [int(tag[1]) for tag, _, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [a["id"] for _, a, _ in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for tag, a, _ in outline.tags if tag == "a"} <= set(ids)
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", html))).replace("\u00a0", " ")
    for shown in (
        "late could not be measured",
        "The number of model 1 cannot be believed (masked): zero-gradient: flat",
        "model 2 holds 8.0 points more than model 3 at ε = 0.1, no more than chance would give (p = 0.065).",
        "model 1 seems to hold 8.0 points more than model 2",
        "+2.0 to +14.0 points",
        "61.0 %",
        "above 0.1",
        "× 4.5",
        "× 6.5",
        "× 1.25",
        "60.0 %",
        "model 1 has no bound: no rule for",
        "30.0 %",
        "steepest compare a b",
    ):
        assert shown in text, shown
    # Nine models: colours come round again, but no two lines look alike.
    keys = re.findall(r'stroke: var\(--m(\d)\)"><path d="M0 7H36" style="stroke-dasharray: ([\d ]+)"', html)[:9]
    assert len(set(keys)) == 9 and len({colour for colour, _ in keys}) == comparison.COLOURS


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_lines_stand_out_in_both_themes(theme: int) -> None:
    sheets = [STYLE.read_text(encoding="utf-8"), STYLE.with_name("comparison.css").read_text(encoding="utf-8")]
    paper = re.findall(r"--paper: (#\w{6})", sheets[0])[theme]
    colours = re.findall(r"--m\d: (#\w{6})", re.findall(r":root \{[^}]*--m1[^}]*\}", sheets[1])[theme])
    assert len(set(colours)) == comparison.COLOURS
    for colour in colours:
        light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


@pytest.mark.browser
def test_browser_opens_it_offline_in_silence(opened: Opened) -> None:
    html = comparison.render(record(3))
    for width, scheme in ((1200, "light"), (360, "dark")):
        with opened(html, width, scheme) as view:
            drawn = "[...document.querySelectorAll('svg[role=img]')].filter(s => s.clientWidth > 0).length"
            assert view.evaluate(drawn) == 3
            line = "getComputedStyle(document.querySelectorAll('.keys svg')[1]).stroke"
            assert view.evaluate(line) == {"light": "rgb(176, 80, 10)", "dark": "rgb(240, 163, 94)"}[scheme]
