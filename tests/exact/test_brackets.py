"""Both sides of an audit: what is proven is never broken, but by a certifier that lies or by rounding."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.recipes import ATTACKS
from steepest.audit import order
from steepest.audit.rungs import Rung
from steepest.basis.errors import ContractError, NoCertificateError
from steepest.certify.library import CERTIFIERS

SIZE, COUNT = 6, 30
NEAREST = Rung(name="nearest", work=ATTACKS.build("fmn"), around=True)


def material() -> tuple[st.Model, Tensor, Tensor]:
    torch.manual_seed(0)
    network, x = nn.Linear(SIZE, 2).eval(), torch.rand(COUNT, SIZE)
    network.bias.data -= network(x).mean(0).detach()
    y = network(x).argmax(1)
    y[::10] = 1 - y[::10]
    return st.Model(network, box=(0, 1)), x, y


@dataclass(frozen=True)
class Liar:
    """Proves everything of every model."""

    call: str = "liar()"
    budgets: tuple[str, ...] = ()
    assumes: tuple[str, ...] = ()

    def prepared(self, model: st.Model, shape: tuple[int, ...]) -> Liar:
        return self

    def lower(self, region: st.Region, y: Tensor) -> Tensor:
        return torch.ones(len(y), dtype=torch.float64)


class Silent(Liar):
    """Has no rule for any model."""

    def prepared(self, model: st.Model, shape: tuple[int, ...]) -> Liar:
        raise NoCertificateError("no rule for aten.tan (tan).")


class Drowned(nn.Module):
    """z = (h + 0.3·x, h + 1): class 1 for every x in [0, 1], but where h is large float32 cannot tell."""

    def forward(self, x: Tensor) -> Tensor:
        huge = 1e8 * x
        return torch.cat([huge + 0.3 * x, huge + 1], 1)


def audited(monkeypatch: pytest.MonkeyPatch, *rungs: Rung, **options) -> st.AuditRun:
    model, x, y = material()
    monkeypatch.setattr(order, "rungs_of", lambda *_: (rungs, ()))
    options = {"budget": st.Linf(0.05), "batch_size": 16, **options}
    return st.audit(model, (x, y), preset="quick", **options)


def test_a_lie_is_found_out_and_named(monkeypatch):
    liar = Rung(name="liar", work=Liar(), around=True)
    with pytest.raises(ContractError, match=r"liar and nearest contradict each other at example 1\b.*float64"):
        audited(monkeypatch, liar, NEAREST)


def test_a_success_of_rounding_is_neither_proven_nor_broken_for_the_bracket():
    x, y = torch.linspace(0, 0.05, 20)[:, None], torch.ones(20, dtype=torch.int64)
    run = st.audit(st.Model(Drowned(), box=(0, 1)), (x, y), st.Linf(0.3), preset="quick", certify="linear")
    rows = run.records()
    assert {row["bracket"] for row in rows} == {"rounding"} and all(row["proven_gauge"] > 3 for row in rows)
    assert all(0.1 < row["radius"] < row["proven_radius"] for row in rows)
    assert run.summary["bracket"] == {"lower": 0, "upper": 0, "exact": 0}
    wide = st.audit(st.Model(Drowned().double(), box=(0, 1)), (x.double(), y), st.Linf(0.3), preset="quick")
    assert wide.robust_accuracy in (0.0, 1.0)


def test_both_sides_of_an_affine_model_meet():
    model, x, y = material()
    run = st.audit(model, (x, y), [st.Linf(0.02), st.Linf(0.05)], preset="quick", certify="linear, ibp")
    summary = run.summary
    assert summary["bracket"] == {"lower": summary["robust_count"], "upper": summary["robust_count"], "exact": COUNT}
    (linear, ibp) = summary["certifiers"]
    assert (linear["name"], linear["entered"], linear["certified"]) == ("linear", COUNT - 3, summary["robust_count"])
    assert ibp["entered"] == COUNT - 3 and ibp["seconds"] > 0
    for row in run.records():
        if row["broken_by"] == "clean":
            assert row["proven_radius"] == row["radius"] == 0 and row["bracket"] == "decided" and row["ratio"] is None
        elif row["radius"] is not None:
            assert 1 - 1e-6 < row["ratio"] < 1.02
    shares = [(row["epsilon"], row["certified"], row["best"]) for row in summary["curve"]]
    assert all(low <= high for _, low, high in shares) and shares[0][1] == run.clean_accuracy
    assert [each["certified_accuracy"] for each in summary["sizes"]] == [
        each["robust_accuracy"] for each in summary["sizes"]
    ]


def test_a_proof_at_a_small_size_stays_known_at_a_large_one(monkeypatch):
    linear = Rung(name="linear", work=CERTIFIERS.build("linear"))
    pgd = Rung(name="pgd", work=ATTACKS.build("pgd(steps=2)"))
    run = audited(monkeypatch, linear, pgd, budget=[st.Linf(0.02), st.Linf(0.1)])
    rows = [row for row in run.records() if row["broken_by"] not in (None, "clean")]
    small = [row for row in rows if abs(row["proven_radius"] - 0.02) < 1e-9]
    assert small and all(row["proven_by"] is None and row["radius"] > 0.02 for row in small)
    assert {round(row["proven_gauge"], 9) for row in run.records()} <= {0.0, 0.2, 1.0}


def test_a_certifier_without_rules_is_left_out_and_says_why(monkeypatch):
    run = audited(monkeypatch, Rung(name="silent", work=Silent()), Rung(name="pgd", work=ATTACKS.build("pgd(steps=2)")))
    assert run.summary["certifiers"] == [] and run.summary["bracket"] is None
    assert run.summary["without_certificate"] == [{"name": "silent", "why": "no rule for aten.tan (tan)."}]
    assert "aten.tan" in st.report(run).read_text(encoding="utf-8")
    assert not any("aten.tan" in note for note in run.summary["notes"])


def test_a_network_too_large_for_a_rung_is_left_out(monkeypatch):
    _, x, _ = material()
    network = nn.Sequential(nn.Linear(SIZE, 9), nn.ReLU(), nn.Linear(9, 2)).eval()
    rung = Rung(name="liar", work=Liar(), units=8)
    monkeypatch.setattr(order, "rungs_of", lambda *_: ((rung,), ()))
    y = network(x).argmax(1)
    run = st.audit(st.Model(network), (x, y), st.Linf(0.05), preset="quick", batch_size=16, allow_chance=True)
    (found,) = run.summary["without_certificate"]
    assert "9 hidden units" in found["why"] and "--method liar" in found["why"]
