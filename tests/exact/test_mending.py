"""A search that was mended: at every budget, whatever the objective is, beside a sample of survivors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

import steepest as st
from steepest.audit.contract import RECORD
from steepest.audit.merging import MENDED, merged
from steepest.models.objectives import Margin

pytestmark = pytest.mark.diagnosed

X = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
Y = (X @ WEIGHTS).argmax(1)
PLAIN = "fgsm, pgd(steps=5)"


def rounded(x: Tensor) -> Tensor:
    return ((32 * x).round() / 32) @ WEIGHTS


def audited(budget, **options):
    return st.audit(rounded, (X, Y), budget, **{"attacks": PLAIN, "allow_chance": True, **options})


def test_every_budget_is_mended():
    both = audited([st.Linf(0.15), st.Linf(0.4)])
    small, large = (size["robust_accuracy"] for size in both.summary["sizes"])
    alone = audited(st.Linf(0.15))
    assert alone.summary["mended"]["first"]["robust_accuracy"] > 0.9 > alone.robust_accuracy
    assert abs(small - alone.robust_accuracy) <= 0.05
    assert large <= small
    assert large < 0.2


@pytest.mark.parametrize("objective", [Margin(), lambda outputs, y: -outputs.gather(1, y[:, None]).squeeze(1)])
def test_an_objective_of_ones_own(objective):
    found = audited(st.Linf(0.1), objective=objective)
    assert found.verdict.word == "masked"
    assert found.robust_accuracy < found.summary["mended"]["first"]["robust_accuracy"]


def test_a_sample_of_survivors_is_drawn_again_after_a_mending(tmp_path):
    asked = {"out": tmp_path / "run", "assure": 8}
    before = audited(st.Linf(0.1), **asked, diagnose=False)
    after = audited(st.Linf(0.1), **asked)
    mended = {row["example_id"] for row in after.records() if row["broken_by"] == "surrogate"}
    assert mended
    assert after.robust_accuracy < before.robust_accuracy
    assured = after.summary["assured"]
    assert assured["survivors"] - assured["broken"] == round(after.robust_accuracy * len(X))
    drawn = pq.read_table(tmp_path / "run/results/assured.parquet")["example_id"].to_pylist()
    assert mended.isdisjoint(drawn)


def test_a_mended_search_that_was_lost_is_made_again(tmp_path):
    whole = audited(st.Linf(0.1), out=tmp_path / "run")
    (tmp_path / "run/results/mended.parquet").unlink()
    with pytest.raises(st.IncompleteError, match="mended search"):
        st.report(tmp_path / "run")
    assert audited(st.Linf(0.1), out=tmp_path / "run").robust_accuracy == whole.robust_accuracy


def row(**known):
    blank = {"example_id": 0, "label": 0, "pixel_hash": "", "clean_prediction": 0, "clean_margin": 1.0, "broken": False}
    blank |= {"broken_by": None, "proven_by": None, "adversarial_prediction": 0, "radius": None, "radius_gauge": None}
    blank |= {"gauge": 0.0, "margin": 1.0, "forwards": 1, "backwards": 1, "status": "exhausted", "seed": 0}
    return {**blank, "fgsm_broken": [False], "unconfirmed": 0, **known}


def test_what_is_broken_stays_broken():
    broken = row(broken=True, broken_by="fgsm", status="ok", radius=0.1, radius_gauge=1.0, margin=-0.5, gauge=1.0)
    (found,) = merged(
        pa.Table.from_pylist([broken], schema=RECORD), pa.Table.from_pylist([row()], schema=RECORD), MENDED
    ).to_pylist()
    assert (found["broken"], found["broken_by"], found["margin"], found["status"]) == (True, "fgsm", -0.5, "ok")


def test_a_black_box_that_draws_random_numbers():
    noisy = st.scores(lambda points: points @ WEIGHTS.numpy() + 0.02 * torch.randn(len(points), 3).numpy())
    found = st.audit(noisy, (X, Y), st.Linf(0.1), attacks="square(queries=50)", allow_chance=True)
    assert found.verdict.word in ("stochastic", "no sign of masking found", "not diagnosed")
