"""Proven examples leave an audit at the budget they are proven for, and make the number exact from below."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.recipes import ATTACKS
from steepest.audit import assurance, order
from steepest.audit.cascade import Cascade
from steepest.audit.outcome import Outcome
from steepest.audit.rungs import Rung
from steepest.audit.statistics import most_missed
from steepest.models.objectives import objective_of
from tests.app.material import answered

COUNT, SIZE = 60, 6


@dataclass(frozen=True)
class Affine:
    """Bounds the margin of two affine outputs, less `slack` times what the region can take from it."""

    network: nn.Linear
    slack: float = 1.0
    call: str = "affine()"
    budgets: tuple[str, ...] = ()
    assumes: tuple[str, ...] = ()

    def prepared(self, model: st.Model, shape: tuple[int, ...]) -> Affine:
        return self

    def lower(self, region: st.Region, y: Tensor) -> Tensor:
        outputs = self.network(region.x).double().detach()
        gap = outputs.gather(1, y[:, None]) - outputs.gather(1, 1 - y[:, None])
        slope = (self.network.weight[1 - y] - self.network.weight[y]).detach()
        return gap[:, 0] - self.slack * region.support(slope)


def material() -> tuple[nn.Linear, Tensor, Tensor]:
    """Two affine outputs, and labels of which a tenth is wrong."""
    torch.manual_seed(0)
    network, x = nn.Linear(SIZE, 2).eval(), torch.rand(COUNT, SIZE)
    network.bias.data -= network(x).mean(0)
    y = network(x).argmax(1)
    y[::10] = 1 - y[::10]
    return network, x, y


def climbed(budgets: list[st.Linf], *rungs: Rung, slack: float = 1.0) -> tuple[Outcome, int]:
    """What a cascade finds, and about how many points the network was asked."""
    network, x, y = material()
    asked = []

    def counted(points: Tensor) -> Tensor:
        asked.append(len(points))
        return network(points)

    model = st.Model(counted, box=(0, 1))
    cascade = Cascade(
        model=model,
        twin=model,
        sloped=model,
        budgets=tuple(budget.fitted((COUNT, SIZE)) for budget in budgets),
        epsilons=tuple(float(budget.epsilon) for budget in budgets),
        rungs=(Rung(name="affine", work=Affine(network, slack)), *rungs),
        objective=objective_of("scaled-ce"),
        factors=torch.tensor([1.0]),
        shape=(SIZE,),
        seed=0,
    )
    return cascade.run(x, y, torch.arange(COUNT)), sum(asked)


def rung(call: str) -> Rung:
    return Rung(name=call.partition("(")[0], work=ATTACKS.build(call))


def test_a_proven_example_enters_no_later_rung():
    outcome, asked = climbed([st.Linf(0.05)], rung("noise(points=7)"))
    clean, affine, noise = outcome.ledger
    assert 0 < affine.proven < affine.entered == COUNT - clean.broken
    assert noise.entered == affine.entered - affine.proven and noise.proven is None
    assert (outcome.forwards[outcome.proven] == 1).all()  # x alone
    assert asked == int(outcome.forwards.sum())
    assert all(name == "affine" for name, proven in zip(outcome.witness, outcome.proven, strict=True) if proven)
    assert not (outcome.proven & outcome.broken).any()


def test_a_proof_for_a_smaller_budget_does_not_retire_at_a_larger_one():
    small, large = st.Linf(0.02), st.Linf(0.1)
    outcome, _ = climbed([small, large], rung("pgd(steps=2)"))
    alone, _ = climbed([large], rung("pgd(steps=2)"))
    first, second = (stage for stage in outcome.ledger if stage.name == "affine")
    assert first.proven > second.proven > 0
    assert outcome.proven.equal(alone.proven)
    assert (outcome.broken | outcome.proven).all()
    # Every success is larger than what was proven at the smaller budget.
    proven, _ = climbed([small])
    assert (outcome.broken & proven.proven).any()
    assert (outcome.radius[proven.proven & outcome.broken] > 0.02).all()


def audited(monkeypatch: pytest.MonkeyPatch, *rungs: Rung, **options) -> st.AuditRun:
    network, x, y = material()
    monkeypatch.setattr(order, "rungs_of", lambda *_: (rungs, ()))
    options = {"budget": st.Linf(0.05), "batch_size": 16, **options}
    return st.audit(st.Model(network, box=(0, 1)), (x, y), preset="quick", **options)


def words(run: st.AuditRun) -> str:
    page = st.report(run).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page))).replace("\u00a0", " ")


def test_an_audit_where_all_is_broken_or_proven_is_exact(monkeypatch):
    network, x, y = material()
    run = audited(monkeypatch, Rung(name="affine", work=Affine(network)), rung("pgd(steps=2)"))
    summary = run.summary
    slope = network.weight[1 - y] - network.weight[y]
    reach = st.Region(st.Linf(0.05), st.Box(0, 1), x).support(slope)
    gap = (network(x) * torch.stack([1 - 2 * y, 2 * y - 1], 1)).sum(1)
    truth = int((gap > reach).sum())
    assert summary["certified_count"] == summary["robust_count"] == truth > 0
    assert summary["certified_accuracy"] == run.robust_accuracy == pytest.approx(truth / COUNT)
    assert sum(row["proven_by"] == "affine" for row in run.records()) == truth
    text = words(run)
    assert "robust accuracy is exact" in text
    assert f"Robust accuracy {100 * run.robust_accuracy:.1f} % (95 % interval" in text
    assert "Entered Broken Proven Robust accuracy after" in text
    said = answered("runs", "show", str(run.folder)).stdout
    assert "robust accuracy is exact" in said and "at most" not in said and "proven" in said.splitlines()[1]


def test_what_is_neither_broken_nor_proven_stays_between_the_bounds(monkeypatch):
    network, _, _ = material()
    run = audited(monkeypatch, Rung(name="affine", work=Affine(network, slack=2.0)), rung("pgd(steps=2)"))
    summary = run.summary
    assert 0 < summary["certified_count"] < summary["robust_count"]
    text = words(run)
    assert f"Robust accuracy at most {100 * run.robust_accuracy:.1f} % (95 % interval" in text
    assert "is exact" not in text
    assert f"never raise it. Certified accuracy is at least {100 * summary['certified_accuracy']:.1f} %" in text


@pytest.mark.parametrize("drawn", [4, COUNT])
def test_proven_examples_are_neither_drawn_for_the_full_protocol_nor_in_doubt(monkeypatch, drawn):
    monkeypatch.setitem(assurance.PROTOCOLS, "deterministic", "autoattack(steps=2, queries=2)")
    network, _, _ = material()
    rungs = (Rung(name="affine", work=Affine(network)), rung("noise(points=1)"))
    run = audited(monkeypatch, *rungs, budget=[st.Linf(0.02), st.Linf(0.05)], assure=drawn)
    summary = run.summary
    found, proven = summary["assured"], summary["certified_count"]
    assert found["drawn"] == min(drawn, found["survivors"]) == found["broken"]  # what is not proven falls
    assert summary["robust_count"] == proven + found["survivors"] - found["broken"]
    missed = most_missed(found["broken"], found["drawn"], found["survivors"])
    assert found["at_least"] == proven + found["survivors"] - missed >= proven > 0
    if drawn == COUNT:
        assert found["at_least"] == proven == summary["robust_count"]
        assert "robust accuracy is exact" in words(run)


def test_without_a_certifier_nothing_is_said_of_proofs(monkeypatch):
    run = audited(monkeypatch, rung("pgd(steps=2)"))
    assert run.summary["certified_count"] is None and run.summary["certified_accuracy"] is None
    text = words(run)
    assert "ertified" not in text and "Proven" not in text
