"""One perturbation for all: the sign of the weights, the majority's direction, and what δ promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import steepest as st
from tests.conformance.cases import Case, case, line

DTYPE = torch.float64
EPS = 0.2


def asked(some: Case, budget: object = None, **options: object) -> tuple[Tensor, st.AttackResult]:
    return st.universal(st.Model(some.network), some.x, some.y, budget or st.Linf(EPS), **options)


def test_on_two_classes_of_a_linear_model_it_is_the_sign_of_the_weights():
    """One class attacked, nothing won: every gradient is w, so δ = ε·sign(w)."""
    some = line([1.0, -2.0, 0.5], reach=10.0)
    delta, result = asked(some)
    direction = (some.network.weight[1] - some.network.weight[0]).detach()
    assert torch.allclose(delta, EPS * direction.sign()[None])
    assert torch.allclose(result.point, some.x + delta)
    assert torch.allclose(result.value, some.margin(some.x) + EPS * direction.abs().sum())
    round_, _ = asked(some, st.L2(EPS))
    assert torch.allclose(round_, EPS * direction[None] / direction.norm(), atol=1e-9)


def test_it_breaks_what_needs_the_whole_budget_and_no_more():
    reach = 0.95 * 3.5 * EPS
    assert asked(line([1.0, -2.0, 0.5], reach=reach))[1].won.all()
    assert not asked(line([1.0, -2.0, 0.5], reach=reach), st.Linf(0.9 * EPS))[1].won.any()


def test_one_delta_serves_all_and_the_majority_decides():
    """Three examples fall to the left, one to the right: a shared δ can only go one way."""
    net = torch.nn.Linear(1, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [-1.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.0, 0.35, -0.65]))
    # class 1 wins left of 0.35, class 2 right of 0.65, class 0 between
    x = torch.tensor([[0.5], [0.45], [0.52], [0.6]], dtype=DTYPE)
    some = Case(net, x, torch.zeros(4, dtype=torch.int64))
    delta, result = asked(some, objective="margin")
    assert torch.allclose(delta.abs(), torch.full((1, 1), EPS, dtype=DTYPE))
    moved = result.point - x
    assert all(torch.allclose(row, delta[0]) or (row == 0).all() for row in moved)
    best = max(int((net(x + d).argmax(1) != 0).sum()) for d in (-EPS, EPS))
    assert int(result.won.sum()) == best


def test_nobody_leaves_when_it_is_solved():
    some = case("image K=10", count=12)
    stopping, going = (some.attack("universal(steps=6)", st.Linf(EPS), drop_solved=drop) for drop in (True, False))
    assert torch.equal(stopping.point, going.point)
    assert stopping.forwards.tolist() == [7] * 12
    assert stopping.backwards.tolist() == [6] * 12


def test_examples_beyond_beta_pull_no_more():
    """Five examples are won at x and pull to the right, one is not and pulls to the left."""
    net = torch.nn.Linear(1, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [-1.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.0, 0.35, -0.65]))
    x = torch.tensor([[0.9]] * 5 + [[0.4]], dtype=DTYPE)
    some = Case(net, x, torch.zeros(6, dtype=torch.int64))
    clipped, everything = asked(some, st.Linf(0.1)), asked(some, st.Linf(0.1), beta=math.inf)
    assert clipped[1].won.all() and float(clipped[0]) < -0.05
    assert everything[1].won.tolist() == [True] * 5 + [False]
    assert (clipped[1].value >= some.margin(x) - 1e-12).all()


def test_it_is_better_than_the_average_perturbation_of_single_examples():
    some = case("image K=10", count=40)
    delta, result = asked(some, steps=30)
    assert torch.isfinite(delta).all() and float(delta.abs().max()) <= EPS
    alone = some.attack("fgsm", st.Linf(EPS), drop_solved=False).point - some.x
    rates = [float((some.margin((some.x + each).clamp(0, 1)) > 0).double().mean()) for each in alone]
    with_delta = float((some.margin((some.x + delta).clamp(0, 1)) > 0).double().mean())
    assert with_delta >= sum(rates) / len(rates)
    assert float(result.won.double().mean()) >= with_delta


def test_the_box_cuts_each_point_and_masks_hold_for_all():
    some = case("image K=10", count=8)
    mask = torch.arange(50).reshape(2, 5, 5) % 3 == 0
    delta, result = asked(some, st.Masked(st.Linf(0.5), mask))
    assert (delta[:, ~mask] == 0).all()
    assert float(result.point.min()) >= 0 and float(result.point.max()) <= 1
    assert (result.gauge <= 1).all()
    moved = (result.point != some.x).flatten(1).any(1)
    assert torch.allclose(result.point[moved], (some.x + delta).clamp(0, 1)[moved])


def test_a_count_is_shared_as_far_as_the_box_lets_any_example():
    """k values move by what the farthest example has room for; the others are cut at the box."""
    some = line([1.0, -2.0, 0.5], reach=10.0)
    x = some.x.clone()
    x[0], x[1] = 0.25, 0.75
    direction = (some.network.weight[1] - some.network.weight[0]).detach()
    delta, result = asked(Case(some.network, x, some.y), st.L0(1), step=1.0)
    place = int(direction.abs().argmax())
    assert int((delta != 0).sum()) == 1
    assert float(delta[0, place]) == pytest.approx(0.75 * float(direction[place].sign()))
    moved = (x + delta).clamp(0, 1)
    assert torch.allclose(result.point, moved) and (result.gauge == 1).all()


def test_what_cannot_be_shared_is_refused_and_nothing_is_fine():
    some = case("series K=3")
    with pytest.raises(st.UsageError, match="one budget for all"):
        asked(some, st.Linf(torch.linspace(0.1, 0.2, 6).reshape(6, 1, 1)))
    mask = torch.ones(6, 3, 4, dtype=torch.bool)
    assert asked(some, st.Masked(st.Linf(0.1), mask))[0].shape == (1, 3, 4)
    mask[4, 1, 2] = False
    for budget in (st.Masked(st.Linf(0.1), mask), st.Intersection(st.L2(0.1), st.Masked(st.Linf(0.1), mask))):
        with pytest.raises(st.UsageError, match="example 4 differs from the first"):
            asked(some, budget)
    for text in ("universal(steps=-1)", "universal(step=0)", "universal(beta=1e400-1e400)"):
        with pytest.raises(st.UsageError):
            some.attack(text)
    empty = Case(some.network, some.x[:0], some.y[:0])
    delta, result = asked(empty)
    assert delta.shape == (1, 3, 4) and not delta.any() and len(result.won) == 0
    per_feature, _ = asked(some, st.Linf(torch.linspace(0, 0.2, 4)))
    assert (per_feature[..., 0] == 0).all()
