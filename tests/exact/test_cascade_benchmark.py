"""The benchmark of the cascade counts what the ledger says of attacks, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.cascade import CASCADE, LOSSES, ORDERS, Comparison, as_measured, result, variants
from benchmarks.subjects import Subject
from benchmarks.trained import ADVERSARIAL, PLAIN, network
from torch import nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.ranking import nearest_classes
from steepest.audit import cascade
from steepest.audit.presets import PRESETS

SUBJECT = Subject(name="plane", epsilon=0.1, shown="0.1", files=(), opened=lambda: st.Model(nn.Identity()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> st.AuditRun:
    torch.manual_seed(0)
    # Two classes told apart by the first of two features: at ε = 0.1 exactly those within 0.1 of 0.5 break.
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([0.5, -0.5]))
    first = torch.tensor([0.1, 0.45, 0.55, 0.9, 0.8, 0.2])
    x = torch.stack([first, torch.full((6,), 0.5)], 1)
    y = torch.tensor([0, 0, 1, 1, 0, 0])
    out: Path = tmp_path_factory.mktemp("audit") / "run"
    return st.audit(
        st.Model(net), (x, y), st.Linf(0.1), attacks="fgsm, noise(points=3)", out=out, batch_size=2, allow_chance=True
    )


def test_only_attacks_are_counted(run: st.AuditRun) -> None:
    spent = {stage["name"]: stage for stage in run.summary["stages"]}
    assert set(spent) == {"clean", "curve", "fgsm", "noise"}
    theirs, ours = as_measured(run, from_x=False), as_measured(run, from_x=True)
    assert (theirs.forwards, theirs.backwards) == (spent["fgsm"]["forwards"] + spent["noise"]["forwards"], 0)
    # The cascade pays for six clean answers, and for the gradient of the five that are right.
    assert (ours.forwards, ours.backwards) == (theirs.forwards + 6 + 5, 5)
    curve = spent["curve"]
    gradients = curve["seconds"] * 10 / (curve["forwards"] + curve["backwards"])
    assert ours.seconds == pytest.approx(theirs.seconds + spent["clean"]["seconds"] + gradients)
    assert theirs.seconds == spent["fgsm"]["seconds"] + spent["noise"]["seconds"]
    assert (ours.count, ours.clean, ours.robust) == (6, 5, [0, 3, 5])
    assert ours.digest == theirs.digest


def test_missed_examples_and_the_total_ratio(run: st.AuditRun) -> None:
    found = replace(as_measured(run, from_x=True), seconds=2.0)
    comparisons = [
        Comparison(subject=SUBJECT, reference=replace(found, seconds=30.0, robust=[0, 4]), cascade=found),
        Comparison(subject=SUBJECT, reference=replace(found, seconds=6.0, robust=[0, 1, 3, 5]), cascade=found),
    ]
    measured = result(comparisons)
    assert measured.table is not None
    assert [line[-2:] for line in measured.table.lines] == [("15.0", "+1 (−1 +2)"), ("3.0", "-1 (−1 +0)"), ("9.0", "")]
    assert [(row.value, row.reached) for row in measured.rows] == [
        (9.0, False), (15.0, False), (3.0, False), (1, False), (-1, True),
    ]  # fmt: skip


def test_nothing_here_is_said_and_not_measured() -> None:
    assert "Not measured" in result([]).note


def test_settings_name_their_weights() -> None:
    assert len({PLAIN.path, ADVERSARIAL.path, replace(PLAIN, epochs=1).path, replace(PLAIN, seed=1).path}) == 4
    assert network()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_variants_lack_one_rung_or_ascend_another_loss_or_order_the_classes_otherwise() -> None:
    rungs, found = CASCADE.rungs, variants()
    without = found[1 : 1 + len(rungs)]
    assert found[0] == CASCADE and [one.rungs for one in without] == [
        tuple(rung for rung in rungs if rung != left_out) for left_out in rungs
    ]
    for loss, one in zip(LOSSES, found[1 + len(rungs) :], strict=False):
        changed = [rung for rung in one.rungs if rung not in rungs]
        assert [rung.name for rung in changed] == ["ascent"] and f"objective={loss!r}" in changed[0].work.call
    assert [one.name for one in found[-len(ORDERS) :]] == ["likeliest class first", "random class first"]


def test_a_variant_is_a_preset_while_it_runs_and_its_order_is_used() -> None:
    y, x = torch.zeros(3, dtype=torch.int64), torch.rand(3, 4)
    model = st.Model(torch.nn.Linear(4, 5))
    problem = pose(model, x, y, st.Linf(0.1))
    likeliest = variants()[-2]
    with likeliest.preset() as name:
        assert PRESETS[name].rungs == CASCADE.rungs
        classes, _, found = cascade.nearest_classes(problem)
        ahead = found.outputs.gather(1, classes)
        assert torch.equal(ahead, ahead.sort(dim=1, descending=True).values)
    assert likeliest.name not in PRESETS and cascade.nearest_classes is nearest_classes
