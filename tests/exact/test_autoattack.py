"""AutoAttack is its published parts in order, costs what they cost, and serves two and three classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.recipes import ATTACKS
from tests.conformance.cases import case
from tests.conformance.test_counts import Stubborn

PUBLISHED = {
    # version → (attack, its parameters) in order, as in Croce & Hein 2020 and 2021
    ("standard", "linf"): [
        ("apgd", {"steps": 100, "restarts": 1, "objective": "ce", "targets": 0}),
        ("apgd", {"steps": 100, "restarts": 1, "targets": 9}),
        ("fab", {"steps": 100, "targets": 9, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}),
        ("square", {"queries": 5000, "p": 0.8, "restarts": 1, "rescale": False}),
    ],
    ("standard", "l1"): [
        ("apgd", {"steps": 100, "restarts": 5, "objective": "ce", "targets": 0}),
        ("apgd", {"steps": 100, "restarts": 1, "targets": 5}),
        ("fab", {"steps": 100, "targets": 9, "restarts": 1}),
        ("square", {"queries": 5000}),
    ],
    ("plus", "l2"): [
        ("apgd", {"steps": 100, "restarts": 5, "objective": "ce", "targets": 0}),
        ("apgd", {"steps": 100, "restarts": 5, "objective": "dlr", "targets": 0}),
        ("fab", {"steps": 100, "restarts": 5, "targets": 0}),
        ("square", {"queries": 5000}),
        ("apgd", {"steps": 100, "restarts": 1, "targets": 9}),
        ("fab", {"steps": 100, "restarts": 1, "targets": 9}),
    ],
    ("rand", "linf"): [
        ("apgd", {"steps": 100, "restarts": 1, "objective": "ce"}),
        ("apgd", {"steps": 100, "restarts": 1, "objective": "dlr"}),
    ],
}


@pytest.mark.parametrize(("version", "kind"), PUBLISHED)
def test_the_stages_are_the_published_ones(version, kind):
    stages = ATTACKS.build(f"autoattack(version={version!r})").stages(kind)
    assert len(stages) == len(PUBLISHED[version, kind])
    for stage, (name, wanted) in zip(stages, PUBLISHED[version, kind], strict=True):
        assert stage.call.partition("(")[0] == name
        for key, value in wanted.items():
            assert f"{key}={value!r}" in stage.call
        assert version != "rand" or stage.oracle.draws == 20


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9)])
def test_passes_are_those_of_the_closed_form_for_any_number_of_classes(classes, targets):
    """1 at x; 101 F and 100 B a run of APGD, 201 F and 100 B of FAB-T, 5001 F of Square: here with 6 and 20."""
    net = Stubborn()
    model = st.Model(lambda x: net(x)[:, :classes])
    x, y = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    found = st.attack("autoattack(steps=6, queries=20)", model, x, y, st.Linf(0.1))
    assert found.forwards.tolist() == [1 + 7 + 7 * targets + 13 * targets + 21] * 2
    assert found.backwards.tolist() == [6 + 6 * targets + 6 * targets] * 2
    # K = 3 has no targeted dlr, K = 2 none at all: the margin takes its place, and that is said.
    assert any("margin" in note for note in found.notes) == (classes < 4)


@pytest.mark.parametrize(("classes", "targets", "aimed"), [(2, 1, 1), (10, 9, 5)])
def test_in_l1_the_passes_are_those_of_four_stages_too(classes, targets, aimed):
    """Five runs of APGD-CE and five targets of APGD-T; FAB-T and Square as everywhere. No stage is left out."""
    net = Stubborn()
    model = st.Model(lambda x: net(x)[:, :classes])
    x, y = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    found = st.attack("autoattack(steps=6, queries=20)", model, x, y, st.L1(0.1))
    assert found.forwards.tolist() == [1 + 7 * 5 + 7 * aimed + 13 * targets + 21] * 2
    assert found.backwards.tolist() == [6 * 5 + 6 * aimed + 6 * targets] * 2
    assert not any("left out" in note for note in found.notes)


def test_in_l1_square_breaks_what_gradients_cannot_see():
    """One pixel of 64 counts, in steps of 1 % of ε: no gradient anywhere, and noise seldom meets it."""

    def network(x: Tensor) -> Tensor:
        moved = (x[:, 0, 4, 3] - 0.5) / 0.45
        steps = (100 * moved).floor().detach() / 100 + 0 * moved
        return torch.stack([0.3 - 0 * steps, steps], 1)

    x, y = torch.full((2, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    stages = ATTACKS.build("autoattack(steps=5, queries=200)").stages("l1")
    for stage in stages[:-1]:
        assert not stage.run(pose(st.Model(network), x, y, st.L1(0.45))).won.any()
    found = st.attack("autoattack(steps=5, queries=200)", st.Model(network), x, y, st.L1(0.45))
    assert found.won.all()
    assert (found.gauge <= 1).all()


def test_what_does_not_serve_a_budget_is_left_out_and_said():
    some = case("image K=10")
    found = some.attack("autoattack(steps=2, queries=4)", "l0")
    assert any("square" in note and "l0" in note and "left out" in note for note in found.notes)


def test_an_example_that_one_target_breaks_is_not_turned_to_the_next():
    """FAB-T as a stage stops at the first success; alone it goes on for a smaller one."""

    def network(x: Tensor) -> Tensor:
        return torch.stack([0.1 - 0 * x[:, 0], x[:, 0] - 0.45, x[:, 1] - 0.46, x[:, 0] - 9], 1)

    x, y = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    problem, whole = pose(st.Model(network), x, y, st.Linf(0.2)), ATTACKS.build("fab(steps=4, targets=3, closing=0)")
    stage = replace(whole, once=True)
    assert whole.run(problem).backwards.tolist() == [12]
    assert stage.run(problem).backwards.tolist() == [4]
    assert bool(stage.run(problem).won)


def test_it_breaks_at_least_what_its_first_stage_breaks():
    for kind in ("vector K=2", "series K=3", "image K=10"):
        some = case(kind, count=12)
        first = some.attack("apgd(steps=10, objective='ce')", "linf")
        assert some.attack("autoattack(steps=10, queries=20)", "linf").won[first.won].all()
