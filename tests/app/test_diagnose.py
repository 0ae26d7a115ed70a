"""Whether a number can be believed: the verdict of an audit, its mending, the panel alone, gates that rest on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import steepest as st
from steepest.diagnose.contract import Finding
from steepest.diagnose.probe import Probe
from tests.app.material import ASK, COUNT, QUICK, answered, asked_json, refused, steepest

pytestmark = pytest.mark.diagnosed

_, DATA, *BUDGET = ASK
UNBELIEVABLE = 11


def level(record: dict, check: str) -> str:
    (found,) = [each for each in record["findings"] if each["check"] == check]
    return found["level"]


def test_an_honest_model_shows_no_sign(place: Path) -> None:
    found = asked_json("audit", *ASK, *QUICK, "--out", "run")
    assert (found["verdict"]["word"], found["verdict"]["believable"]) == ("no sign of masking found", True)
    assert found["mended"] is None
    assert "verdict: no sign of masking found" in answered("audit", *ASK, *QUICK, "--out", "run").stdout


@pytest.mark.parametrize("attacks", ["fgsm", "fgsm, pgd(steps=5)"])
def test_a_masked_gradient_is_seen_and_the_search_mended(place: Path, attacks: str) -> None:
    large = (DATA, "--budget", "linf:0.2")
    words = ("audit", "net.py:rounded", *large, "--attacks", attacks, "--batch-size", "16")
    found = asked_json(*words, "--out", "run")
    first, plain = found["mended"]["first"], asked_json("audit", "net.py:make", *large, *QUICK, "--out", "plain")
    assert found["verdict"]["word"] == "masked"
    assert level(found, "zero-gradient") == "fail"
    assert first["robust_count"] > plain["robust_count"] + COUNT // 4, "the wrapper hides nothing here"
    assert found["robust_count"] <= plain["robust_count"] + COUNT // 50
    rows = st.audit("net.py:rounded", DATA, st.Linf(0.2), attacks=attacks, batch_size=16, out="run").records()
    broken = [row for row in rows if row["broken_by"] == "surrogate"]
    assert len(broken) == first["robust_count"] - found["robust_count"]
    assert all(row["broken"] and row["gauge"] <= 1 and row["backwards"] for row in broken)
    said = answered(*words, "--out", "run").stdout
    assert "as first measured" in said
    assert "gradients pass through a surrogate" in said


def test_a_gate_that_rests_on_what_cannot_be_believed(place: Path) -> None:
    words = ("audit", "net.py:rounded", DATA, *BUDGET, *QUICK, "--gate", "robust>=0", "--out", "run")
    result = steepest(*words)
    assert result.exit_code == UNBELIEVABLE, result.output
    assert "cannot be believed: masked" in result.stderr
    assert steepest(*words[:-3], "robust>=1", "--out", "run").exit_code == 10
    assert steepest(*words, "--no-diagnose", "--out", "other").exit_code == 0


def test_a_model_without_a_gradient_is_attacked_through_its_surrogate(place: Path) -> None:
    cut, plain = (
        asked_json("audit", f"net.py:{name}", DATA, *BUDGET, *QUICK, "--out", name) for name in ("detached", "make")
    )
    assert cut["verdict"]["word"] == "masked"
    assert level(cut, "gradients") == "fail"
    assert any("surrogate" in note for note in cut["notes"])
    assert abs(cut["robust_count"] - plain["robust_count"]) <= 1


def test_a_run_is_diagnosed_once_and_can_be_later(place: Path) -> None:
    words = ("audit", "net.py:rounded", DATA, *BUDGET, *QUICK, "--out", "run")
    before = asked_json(*words, "--no-diagnose")
    assert before["verdict"]["word"] == "not diagnosed"
    assert before["mended"] is None
    shards = {path: path.stat().st_mtime_ns for path in Path("run/results").glob("part-*")}
    after, kept = asked_json(*words), Path("run/results/diagnosis.json").stat().st_mtime_ns
    assert after["mended"]["first"]["robust_count"] == before["robust_count"]
    assert asked_json(*words) == after
    assert Path("run/results/diagnosis.json").stat().st_mtime_ns == kept
    assert {path: path.stat().st_mtime_ns for path in Path("run/results").glob("part-*")} == shards


def test_a_diagnosis_that_was_cut_off_is_made_again(place: Path) -> None:
    words = ("audit", "net.py:rounded", DATA, *BUDGET, *QUICK, "--out", "run")
    whole = asked_json(*words)
    Path("run/results/diagnosis.json").unlink()  # written last
    again = asked_json(*words)
    assert again["mended"]["first"] == whole["mended"]["first"]
    assert again["verdict"]["word"] == whole["verdict"]["word"]
    assert [each["check"] for each in again["findings"]] == [each["check"] for each in whole["findings"]]


def test_the_panel_alone(place: Path) -> None:
    found = asked_json("diagnose", "net.py:rounded", DATA, *BUDGET, "--seconds", "1", "-o", "found.json")
    assert found["verdict"]["word"] == "masked"
    assert found["n"] == COUNT
    kept = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert kept["verdict"] == found["verdict"]
    assert kept["command"].endswith(" --sample 64 --seconds 1")
    said = answered("diagnose", "net.py:rounded", DATA, *BUDGET, "--checks", "gradients,zero-gradient").stdout
    assert "verdict: masked" in said
    refused("diagnose", "net.py:make", DATA, *BUDGET, "--checks", "gradient", says=("'gradient'", "gradients"))


def test_a_model_that_crashes_on_some_inputs_is_shown_and_the_panel_goes_on() -> None:
    x = torch.rand(24, 6, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    bound = float(x.sum(1).sort().values[-3]) + 1e-4  # two examples lie beyond, and an attack may get there

    def network(points: torch.Tensor) -> torch.Tensor:
        if (points.sum(1) > bound).any():
            raise ValueError("too bright")
        return points @ weights

    found = st.diagnose(network, (x, (x @ weights).argmax(1)), st.Linf(0.05), seconds=1)
    assert found.count == 22
    assert any("2 of 24 examples (ValueError: too bright)" in note for note in found.notes)
    levels = {each.check: each for each in found.findings}
    assert levels["gradients"].level.value == "pass"
    assert levels["unbounded"].level.value == "not run"
    assert "too bright" in levels["unbounded"].says


def test_few_examples_are_said_to_be_few(place: Path) -> None:
    found = asked_json("diagnose", *ASK, "--limit", "5", "--seconds", "1")
    assert any("few" in note for note in found["notes"])


def test_black_boxes_are_not_called_masked() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.random((20, 6)).astype(np.float32), rng.normal(size=(6, 3))
    model = st.scores(lambda points: points @ weights)
    y = model.logits(torch.from_numpy(x)).argmax(1)
    found = st.diagnose(model, (torch.from_numpy(x), y), st.Linf(0.05), seconds=1)
    gradients = next(each for each in found.findings if each.check == "gradients")
    assert gradients.level.value == "not run"
    assert "scores only" in gradients.says


def test_the_objective_at_hand_is_known_by_its_name() -> None:
    """Checks that compare objectives must know which of them the number rests on."""
    x = torch.rand(24, 6, generator=torch.Generator().manual_seed(0))
    network = lambda points: 40 * points[:, :3] + 200 * (points[:, :3] > 0.5)  # noqa: E731
    asked = {"checks": ["objectives"], "seconds": 1}
    seen = list[object]()

    def examined(probe: Probe, *_: object) -> list[Finding]:
        seen.append(probe.objective)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steepest.diagnose.api.examine", examined)
        for name in ("ce", "margin", "dlr"):
            st.diagnose(network, (x, network(x).argmax(1)), st.Linf(0.05), objective=name, **asked)
    assert seen == ["ce", "margin", "dlr"]
