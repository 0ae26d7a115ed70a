"""`steepest certify`: both sides of every example, from the command to the page."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq

from tests.app.material import ASK, COUNT, answered, asked_json, refused, steepest

SIZES = ("net.py:make", "data.npz", "--budget", "linf:0.02,0.1", "--batch-size", "16", "--method", "linear")


def words(path: str | Path) -> str:
    page = Path(path).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page))).replace("\u00a0", " ")


def test_the_command_prints_proofs_and_the_bracket_and_writes_a_page(place: Path) -> None:
    said = answered("certify", *SIZES, "--out", "run", "-o", "a.json", "-o", "a.card.md", "-o", "a.sarif").stdout
    found = json.loads(Path("a.json").read_text())
    assert {"n", "clean_accuracy", "certified_accuracy", "certifiers", "bracket"} <= found.keys()
    (method,) = found["certifiers"]
    assert method.keys() == {"name", "entered", "certified", "seconds"} and method["name"] == "linear"
    low, high, exact = (found["bracket"][name] for name in ("lower", "upper", "exact"))
    # The model is affine: every example is decided but those that a proof and an attack leave between them.
    assert 0 < low <= high < COUNT and exact == COUNT - (high - low) and exact >= COUNT - 2
    assert found["certified_accuracy"] == low / COUNT and method["certified"] == low
    assert "method  entered  certified  seconds" in said and f"exact for {exact}." in said
    assert said.count("certified accuracy at least") == 2 and "run/report.html" in said
    text = words("run/report.html")
    assert "The bracket" in text and f"exact for {exact}." in text and "What each certifier proved" in text
    assert "Both sides of each example" in text and "Proven at the budget" in text
    assert "certified-accuracy" in Path("a.card.md").read_text() and "exact for" in Path("a.card.md").read_text()
    properties = json.loads(Path("a.sarif").read_text())["runs"][0]["properties"]
    assert properties["bracket"] == found["bracket"]
    rows = pq.read_table(next(Path("run/results").glob("part-*.parquet"))).to_pylist()
    right = [row for row in rows if row["broken_by"] != "clean"]
    assert right and all(row["proven_radius"] > 0 and not row["rounding"] for row in right)
    assert all(row["radius"] >= row["proven_radius"] * (1 - 1e-6) for row in right if row["radius"] is not None)
    # The same command again continues, and finds all done.
    assert "continuing: 60 of 60" in steepest("certify", *SIZES, "--out", "run").stderr


def test_a_gate_may_ask_for_certified_accuracy(place: Path) -> None:
    ask = (*ASK, "--batch-size", "16", "--method", "linear", "--limit", "20", "--out", "run")
    assert steepest("certify", *ask, "--gate", "certified>=0.05").exit_code == 0
    failed = steepest("certify", *ask, "--gate", "certified>=0.999")
    assert failed.exit_code == 10 and "certified is" in failed.stderr
    found = asked_json("runs", "show", "run")
    assert found["certifiers"] and found["command"].startswith("steepest certify net.py:make data.npz")


def test_a_model_without_rules_is_refused_by_the_name_of_its_operation(place: Path) -> None:
    refused("certify", "net.py:rounded", "data.npz", "--budget", "linf:0.1", "--method", "crown", says=("round",))
    refused("certify", *ASK, "--method", "crwn", says=("crwn", "did you mean 'crown'"))
    refused("certify", *ASK, "--method", ",", says=("names none",))


def test_certifiers_are_listed(place: Path) -> None:
    names = answered("list", "certifiers").stdout.split()
    assert {"linear", "ibp", "crown"} <= set(names) and names == sorted(names)
    (linear,) = (row for row in asked_json("list", "certifiers")["certifiers"] if row["name"] == "linear")
    assert linear["call"] == "linear()" and linear["source"] and linear["cost"]
