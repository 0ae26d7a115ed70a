"""The bound on what an audit missed, where what can be broken is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.audit import assurance
from steepest.audit.contract import RECORD
from steepest.audit.merging import merged
from steepest.audit.statistics import most_missed
from steepest.audit.store import RunFolder
from steepest.report.run import triples

COUNT, SIZE, EPSILON = 90, 6, 0.06
SHORT = {"deterministic": "autoattack(steps=3, queries=2)", "random": "autoattack(version='rand', steps=3)"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two affine outputs few steps do what many would."""
    monkeypatch.setattr(assurance, "PROTOCOLS", SHORT)


def material() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    network, x = nn.Linear(SIZE, 2).eval(), 0.2 + 0.6 * torch.rand(COUNT, SIZE)
    network.bias.data -= network(x).mean(0).detach()
    y = network(x).argmax(1)
    y[::9] = 1 - y[::9]
    return network, x, y


def breakable() -> set[int]:
    """Whatever an attack at the right place breaks, or what is wrong already: margin against the dual norm."""
    network, x, y = material()
    gap = (network(x) * torch.stack([1 - 2 * y, 2 * y - 1], 1)).sum(1)
    reach = EPSILON * (network.weight[0] - network.weight[1]).abs().sum()
    return set((gap < reach).nonzero().squeeze(1).tolist())


def audited(assure: int, out: Path | None = None, network=None, **options) -> st.AuditRun:
    """An audit that finds next to nothing: one random point for each example."""
    own, x, y = material()
    options = {"attacks": "noise(points=1)", "batch_size": 16, **options}
    model = st.Model(network or own, box=(0, 1))
    return st.audit(model, (x, y), st.Linf(EPSILON), out=out, assure=assure, **options)


def broken(run: st.AuditRun) -> set[int]:
    return {row["example_id"] for row in run.records() if row["broken"]}


def test_all_survivors_give_the_protocols_own_number(tmp_path):
    run = audited(COUNT, tmp_path / "run", save=True, shard_size=64)
    assert broken(run) == breakable()
    found = run.summary["assured"]
    assert found["drawn"] == found["survivors"] > found["broken"] > 0
    assert found["accuracy_at_least"] == run.robust_accuracy == pytest.approx(1 - len(breakable()) / COUNT)
    assert found["at_least"] == run.summary["robust_count"]
    kept = [np.load(file)["ids"] for file in RunFolder(run.folder).arrays("adversarial-assured-*.npz")]
    flipped = [row["example_id"] for row in run.records() if row["broken_by"] == "assurance"]
    assert len(kept) == 2 and np.concatenate(kept).tolist() == flipped


def test_a_sample_flips_those_of_it_that_can_be_broken_and_bounds_the_rest(tmp_path):
    plain, run = audited(0), audited(20, tmp_path / "run")
    before = {row["example_id"]: row for row in plain.records()}
    after = {row["example_id"]: row for row in run.records()}
    table = RunFolder(run.folder).assured()
    sample = set(table["example_id"].to_pylist())
    assert len(sample) == 20 and not sample & broken(plain)
    assert broken(run) - broken(plain) == sample & breakable()
    for number, row in after.items():
        if number not in sample:
            assert row == before[number]
            continue
        assert row["forwards"] > before[number]["forwards"] and row["backwards"] > 0
        assert row["broken_by"] == ("assurance" if number in breakable() else None)
        assert row["margin"] <= before[number]["margin"]
        assert not row["broken"] or (row["margin"] < 0 < row["radius"] <= EPSILON and row["radius_gauge"] <= 1)
    survivors, lost = COUNT - len(broken(plain)), len(sample & breakable())
    assert 0 < lost < 20
    missed = most_missed(lost, 20, survivors)
    summary = run.summary
    assert summary["assured"] == {
        "protocol": "autoattack(version='standard', steps=3, queries=2)",
        "drawn": 20,
        "survivors": survivors,
        "broken": lost,
        "unmeasured": 0,
        "confidence": 0.95,
        "at_least": survivors - missed,
        "accuracy_at_least": pytest.approx((survivors - missed) / COUNT),
    }
    assert summary["robust_count"] == survivors - lost
    assert summary["sizes"][-1]["robust_accuracy"] == summary["curve"][-1]["best"] == run.robust_accuracy
    stage = summary["stages"][-1]
    assert (stage["name"], stage["entered"], stage["broken"]) == ("assurance", 20, lost)
    assert sum(stage["forwards"] for stage in summary["stages"]) == sum(row["forwards"] for row in after.values())


def test_another_seed_draws_another_sample(tmp_path):
    samples = []
    for seed in (0, 1):
        run = audited(20, tmp_path / f"{seed}", seed=seed)
        samples.append(set(RunFolder(run.folder).assured()["example_id"].to_pylist()))
    assert samples[0] != samples[1]


def test_a_finished_sample_is_not_drawn_again_and_a_missing_one_is(tmp_path):
    network, _, _ = material()
    asked = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return network(points)

    first = audited(10, tmp_path / "run", counted)
    whole = sum(asked)
    assert audited(10, tmp_path / "run", counted).records() == first.records()
    assert sum(asked) - whole < COUNT * 10  # what looking at the model takes
    part = RunFolder(first.folder).part("assured")
    part.unlink()
    with pytest.raises(st.IncompleteError, match="sample of the survivors"):
        st.report(first.folder)
    assert audited(10, tmp_path / "run", counted).records() == first.records()


def test_a_finished_run_takes_another_sample_and_keeps_its_shards(tmp_path):
    plain = audited(0, tmp_path / "run", save=True)
    before = plain.records()
    shards = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "results").iterdir()}
    for count in (20, 5):
        run, fresh = (audited(count, tmp_path / name, save=True) for name in ("run", f"fresh {count}"))
        assert run.records() == fresh.records() != before
        assert run.summary["assured"] == fresh.summary["assured"]
        assert f"assure={count}" in run.summary["command"]
        manifests = [RunFolder(each.folder).manifest() for each in (run, fresh)]
        assert manifests[0]["plan"] == manifests[1]["plan"] and manifests[0]["plan_hash"] == manifests[1]["plan_hash"]
        # Pictures that a larger sample left behind are not shown as if they were of this one.
        shown = {triple.example_id for triple in triples(RunFolder(run.folder), manifests[0])}
        assert shown == {row["example_id"] for row in run.records() if row["broken_by"] not in (None, "clean")}
    none = audited(0, tmp_path / "run", save=True)
    assert none.records() == before and none.summary["assured"] is None
    assert [stage["name"] for stage in none.summary["stages"]] == [stage["name"] for stage in plain.summary["stages"]]
    assert {file: file.stat().st_mtime_ns for file in shards} == shards


def test_a_sample_that_is_damaged_or_of_another_number_counts_as_missing(tmp_path):
    run = audited(5, tmp_path / "run")
    part = RunFolder(run.folder).part("assured")
    other = RunFolder(audited(6, tmp_path / "other").folder).part("assured")
    for content in (part.read_bytes()[:-9], other.read_bytes()):
        part.write_bytes(content)
        with pytest.raises(st.IncompleteError, match="sample of the survivors"):
            st.report(run.folder)
        assert audited(5, tmp_path / "run").records() == run.records()


def test_a_random_model_meets_the_version_for_those():
    network, _, _ = material()

    class Restless(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return network(points) + 1e-4 * torch.randn(len(points), 2)

    assert audited(3, network=Restless()).summary["assured"]["protocol"].startswith("autoattack(version='rand'")


def test_without_gradients_it_is_refused_before_anything_is_written(tmp_path):
    network, _, _ = material()
    scores = st.scores(lambda points: network(torch.as_tensor(points)).softmax(1).detach().numpy())
    _, x, y = material()
    with pytest.raises(st.UsageError, match=r"assure=5 .* gives scores only: leave --assure out, or lend"):
        st.audit(scores, (x, y), st.Linf(EPSILON), attacks="noise", assure=5, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(st.UsageError, match="assure=-1 is not allowed"):
        audited(-1)


def test_what_the_protocol_leaves_out_or_replaces_is_said():
    network, x, y = material()
    network.bias.data[0] += 9  # out of reach, so that every stage is asked
    run = st.audit(st.Model(network, box=(0, 1)), (x, 0 * y), st.L0(1), attacks="noise(points=1)", assure=2)
    said = [note for note in run.summary["notes"] if note.startswith("assurance: ")]
    assert any("square" in note and "does not serve l0 and was left out" in note for note in said)
    assert any("margin took the place of the targeted dlr" in note for note in said)


def row(number: int, **known) -> dict[str, object]:
    """A record of an example that survived."""
    return {
        "example_id": number, "label": 0, "pixel_hash": "", "clean_prediction": 0, "clean_margin": 1.0, "broken": False,
        "broken_by": None, "proven_by": None, "adversarial_prediction": 0, "radius": None, "radius_gauge": None,
        "gauge": 0.5, "margin": 0.5, "forwards": 3, "backwards": 1, "status": "exhausted", "seed": 0,
        "fgsm_broken": [False], "unconfirmed": 0, "proven_radius": 0.0, "proven_gauge": 0.0, "rounding": False,
    } | known  # fmt: skip


def test_records_of_both_searches_become_one():
    first = [
        row(0, margin=0.2, gauge=0.7, radius=3.0, radius_gauge=2.0),  # a success beyond the budget is known
        row(1, status="zero_gradient", unconfirmed=1),
        row(2),
        row(3, margin=0.2, gauge=0.7),
        row(4),
    ]
    won = {"broken": True, "status": "ok", "adversarial_prediction": 1, "margin": -0.1, "gauge": 1.0}
    second = [
        row(3, margin=0.4, status="zero_gradient"),
        row(2, status="nonfinite", margin=None),
        row(1, margin=0.1, gauge=0.9, forwards=10, unconfirmed=2),
        row(0, **won, broken_by="clean", radius=1.0, radius_gauge=0.9),
    ]
    tables = (pa.Table.from_pylist(rows, schema=RECORD) for rows in (first, second))
    zero, one, two, three, four = merged(*tables, "assurance").to_pylist()
    passes = {"forwards": 6, "backwards": 2}
    assert zero == row(0, **won, **passes, broken_by="assurance", radius=1.0, radius_gauge=0.9)
    assert one == row(1, margin=0.1, gauge=0.9, forwards=13, backwards=2, unconfirmed=3)
    assert two == row(2, **passes, status="nonfinite")
    assert three == row(3, **passes, margin=0.2, gauge=0.7)
    assert four == first[4]
