"""`steepest smooth`: a table, counts that survive an interruption, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from steepest.app import smooth
from tests.app.material import COUNT, answered, asked_json, refused, steepest

ASK = ("net.py:make", "data.npz", "--sigma", "0.1", "--draws", "200", "--first-draws", "20")


def test_a_table_and_a_result_for_every_example(place: Path) -> None:
    found = asked_json("smooth", *ASK, "--out", "s", "--radii", "0,0.05,1")
    assert found["n"] == COUNT and "not f itself" in found["certifies"]
    assert found["largest_possible_radius"] == pytest.approx(0.1 * norm.ppf(0.001 ** (1 / 200)))
    zero, some, beyond = (row["accuracy"] for row in found["certified"])
    assert 0.5 < zero <= 1 and zero >= some > beyond == 0
    held = json.loads((place / "s" / smooth.RESULT).read_text())
    examples = held.pop("examples")
    assert held == found and len(examples) == COUNT
    right = [row["prediction"] == row["label"] for row in examples]
    assert zero == pytest.approx(np.mean(right))
    assert found["average_radius"] == pytest.approx(
        np.mean([r["radius"] * ok for r, ok in zip(examples, right, strict=True)])
    )
    said = answered("smooth", *ASK).stdout
    assert "certified accuracy" in said and "smoothed classifier" in said and "nothing was written" in said


def test_an_interrupted_smoothing_goes_on_and_ends_as_an_unbroken_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked_json("smooth", *ASK, "--limit", "9", "--out", "whole")
    drawing, passed = smooth.drawing, []

    def tired(*args, **keywords):
        for part in drawing(*args, **keywords):
            passed.append(part)
            if len(passed) > 12:
                raise KeyboardInterrupt
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(smooth, "drawing", tired)
        result = steepest("smooth", *ASK, "--limit", "9", "--out", "parts", "--batch-size", "50")
    assert result.exit_code == 130 and "the same command continues" in result.stderr
    with np.load("parts/counts.npz") as held:
        assert 0 < held["drawn"].sum() < 9 * 220
    parts = asked_json("smooth", *ASK, "--limit", "9", "--out", "parts")
    with np.load("parts/counts.npz") as held, np.load("whole/counts.npz") as other:
        assert all(np.array_equal(held[name], other[name]) for name in held.files)
    assert parts["certified"] == whole["certified"] and parts["average_radius"] == whole["average_radius"]


def test_counts_of_something_else_are_not_gone_on_from(place: Path) -> None:
    answered("smooth", *ASK, "--limit", "3", "--out", "s")
    more = asked_json("smooth", *ASK[:4], "--draws", "300", "--first-draws", "20", "--limit", "3", "--out", "s")
    assert more["draws"] == 300
    refused("smooth", *ASK, "--limit", "3", "--out", "s", says=("300 draws", "--draws 200", "--out"))
    for other in (("--sigma", "0.2"), ("--seed", "1"), ("--limit", "4"), ("--first-draws", "30")):
        refused("smooth", *ASK, "--draws", "400", "--limit", "3", *other, "--out", "s", says=("another model", "--out"))
    (place / "s" / "counts.npz").write_bytes(b"PK")
    refused("smooth", *ASK, "--limit", "3", "--out", "s", says=("damaged", "--out"))
    (place / "file").write_text("x")
    refused("smooth", *ASK, "--out", "file", says=("is a file",))
    refused("smooth", *ASK[:2], "--sigma", "0", says=("sigma=0",))
