"""An audit that searches in a twin: what it writes down, takes up again, and leaves to the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.audit import order
from steepest.audit import run as running
from steepest.audit.assurance import PROTOCOLS
from steepest.audit.cascade import Cascade
from steepest.audit.outcome import Outcome
from steepest.audit.store import RunFolder
from steepest.models import prepare as preparing
from steepest.models.confirmed import Confirmed
from steepest.models.prepare import Preparation
from steepest.report.page import render
from tests.app.material import ASK, QUICK, asked_json, refused

CHANGES = ("batch-norm folded", "bfloat16 inside")


def network() -> nn.Module:
    """A small network with batch-norm, trained on nothing; half of its examples lie near a boundary."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    nn.init.normal_(net[4].weight, std=0.5)
    for layer in (0, 4, 6):
        nn.init.zeros_(net[layer].bias)  # so that a small ε reaches the boundary
    for _ in range(3):
        net(torch.rand(64, 8))
    return net.eval()


def data(net: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(50, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, net(x).argmax(1)


def audited(net: nn.Module, **options: Any) -> st.AuditRun:
    options = {"preset": "quick", "batch_size": 16, "allow_chance": True, **options}
    return st.audit(st.Model(net), data(net), st.Linf(0.04), **options)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change that is like the original is kept, however fast it is."""
    monkeypatch.setattr(preparing, "_gain", lambda *given: 2.0)
    monkeypatch.setattr(preparing, "_computes_in_half", lambda device: True)
    monkeypatch.setattr(preparing, "WORTH", 0.0)


class Told(nn.Module):
    """A network and what it was asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        out: Tensor = self.inner(x)
        return out


@pytest.mark.usefixtures("eager")
def test_the_twin_is_in_plan_manifest_summary_and_page():
    net = network()
    run = audited(net)
    manifest = RunFolder(run.folder).manifest()
    assert tuple(manifest["plan"]["prepared"]) == CHANGES
    made = run.summary["preparation"]
    assert made == manifest["preparation"] and made["changes"] == list(CHANGES) and made["speedup"] == 4
    assert 0 < made["difference"] < 0.05 and made["seconds"] > 0
    assert "batch-norm folded, bfloat16 inside; 4.0× faster" in render(run.summary, manifest)
    assert not any("repeated" in note for note in run.summary["notes"])
    exact = audited(net, precision="exact")
    assert 0 < run.robust_accuracy < 1 and abs(run.robust_accuracy - exact.robust_accuracy) <= 0.04
    assert [row["clean_margin"] for row in run.records()] == [row["clean_margin"] for row in exact.records()]
    assert "searched in a twin" not in render(exact.summary, RunFolder(exact.folder).manifest())


@pytest.mark.usefixtures("eager")
def test_what_a_record_says_of_its_point_is_the_models_own_answer():
    net = network()
    run = audited(net, save=True)
    files = RunFolder(run.folder).arrays("adversarial-*.npz")
    records = {row["example_id"]: row for row in run.records()}
    seen = 0
    for file in files:
        import numpy as np

        held = np.load(file)
        for index, point in zip(held["ids"], held["images"], strict=True):
            outputs, row = net(torch.from_numpy(point)[None])[0].detach(), records[int(index)]
            others = torch.cat([outputs[: row["label"]], outputs[row["label"] + 1 :]])
            assert row["margin"] == pytest.approx(float(outputs[row["label"]] - others.max()), abs=1e-5)
            assert int(outputs.argmax()) == row["adversarial_prediction"] != row["label"]
            seen += 1
    assert seen > 5


def test_exact_and_a_twin_that_is_not_worth_it_are_the_same_records(monkeypatch: pytest.MonkeyPatch):
    net = network()
    plain = audited(net).records()
    monkeypatch.setattr(preparing, "_asked", lambda *given: pytest.fail("measured"))
    assert audited(net, precision="exact").records() == plain
    with pytest.raises(st.UsageError, match="precision"):
        audited(net, precision="half")


@pytest.mark.usefixtures("eager")
def test_a_run_taken_up_again_keeps_its_twin_without_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net = network()
    whole = audited(net, out=tmp_path / "whole", shard_size=16).records()
    audited(net, out=tmp_path / "run", shard_size=16)
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    for part in sorted((tmp_path / "run" / "results").iterdir())[1:]:
        part.unlink()
    monkeypatch.setattr(running, "prepare", lambda *given, **more: pytest.fail("measured again"))
    assert audited(net, out=tmp_path / "run").records() == whole
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    with pytest.raises(st.UsageError, match="precision: auto → exact"):
        audited(net, out=tmp_path / "run", precision="exact")


def plant(monkeypatch: pytest.MonkeyPatch, make: Callable[..., st.Model]) -> None:
    """Let audits search in what `make` returns, as if it had been chosen by measuring."""
    monkeypatch.setattr(running, "prepare", lambda model, *_, **__: Preparation(model=model, changes=("bfloat16",)))
    monkeypatch.setattr(order, "prepared", make)


@pytest.mark.parametrize("lies", ["everywhere", "for some"])
def test_a_planted_twin_that_lies_breaks_nothing(monkeypatch: pytest.MonkeyPatch, lies: str):
    class Lying(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            turned = x[:, :1] > (-1 if lies == "everywhere" else 0.5)
            return torch.where(turned, net(x).roll(1, 1), net(x))

    net = network()
    original, twin = Told(net), Told(Lying())

    def planted(model: st.Model, *given: Any) -> st.Model:
        original.rows = twin.rows = 0
        return st.Model(twin).asked_by(Confirmed(model))

    plant(monkeypatch, planted)
    run = st.audit(st.Model(original), data(net), st.Linf(0.04), preset="quick", batch_size=16, allow_chance=True)
    rows = run.records()
    assert sum(row["forwards"] for row in rows) == original.rows + twin.rows
    assert sum(stage["forwards"] for stage in run.summary["stages"]) == original.rows + twin.rows
    assert all(row["broken"] == (row["adversarial_prediction"] != row["label"]) for row in rows)
    assert run.summary["unconfirmed"] > 0
    if lies == "everywhere":
        assert all(row["unconfirmed"] > 0 for row in rows if not row["broken"])
    assert run.robust_accuracy > 0.2


def test_differences_over_a_thousandth_are_taken_in_the_model_itself(monkeypatch: pytest.MonkeyPatch):
    net = network()
    twin = Told(net)

    plant(monkeypatch, lambda model, *given: st.Model(twin).asked_by(Confirmed(model)))
    audited(net, attacks="nes(steps=1, samples=2)")
    assert twin.rows == 0
    audited(net, attacks="noise(points=2)")
    assert twin.rows > 0


def test_the_command_line_and_the_file_take_a_precision(place: Path):
    found = asked_json("audit", *ASK, *QUICK, "--precision", "exact", "--out", "run")
    assert found["precision"] == "exact" and found["preparation"]["changes"] == []
    assert "--precision exact" in json.loads((place / "run" / "manifest.json").read_text())["command"]
    (place / "steepest.toml").write_text('precision = "exact"\n')
    assert asked_json("audit", *ASK, *QUICK)["precision"] == "exact"
    refused("audit", *ASK, *QUICK, "--precision", "half", says=("precision", "'auto' or 'exact'"))


def test_the_reference_protocol_searches_in_the_model_itself(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    monkeypatch.setitem(PROTOCOLS, "deterministic", "autoattack(steps=2, queries=2)")
    climbs, run = {}, Cascade.run

    def told(self: Cascade, *given: Tensor) -> Outcome:
        climbs[self.rungs[0].name] = self.twin is self.model
        return run(self, *given)

    monkeypatch.setattr(Cascade, "run", told)
    found = audited(network(), preset="standard", attacks="noise(points=1)", assure=3)
    assert found.summary["preparation"]["changes"] and found.summary["assured"]["drawn"] == 3
    assert climbs == {"noise": False, "assurance": True}
