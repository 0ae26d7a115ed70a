"""The curve of one gradient equals separate FGSMs, and its radius is the closed form where there is one."""

from __future__ import annotations

import math

import pytest
import torch

from steepest.attacks.api import attack, fgsm
from steepest.attacks.curve import curve
from steepest.basis.errors import UsageError
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from tests.conformance.cases import case
from tests.tables import NAMES, budgets

GRID = [k / 6 for k in range(1, 7)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["series K=3", pytest.param("image K=10", marks=pytest.mark.full)])
def test_equals_fgsm_run_separately_at_each_epsilon(name, kind):
    some = case(kind, count=8)
    found = curve(some.network, some.x, some.y, some.budget(name), factors=GRID, tolerance=None)
    wrong = some.margin(some.x) > 0
    for column, factor in enumerate(GRID):
        budget = budgets(some.shape, 0.3)[name].scaled(factor)
        point = fgsm(some.network, some.x, some.y, budget)
        assert torch.equal(found.broken[:, column], (some.margin(point) > 0) | wrong)
        assert torch.equal(found.broken[:, column], attack("fgsm", some.network, some.x, some.y, budget).won)
    assert torch.allclose(found.accuracy, 1 - found.broken.double().mean(0))
    first = [next((f for f, b in zip(GRID, row, strict=True) if b), math.inf) for row in found.broken.tolist()]
    for i, factor in enumerate(first):
        assert found.gauge[i] <= factor + 1e-12 if not wrong[i] else found.gauge[i] == 0
        assert bool(found.radius[i].isinf()) == math.isinf(factor)


@pytest.mark.parametrize(
    ("make", "dual"), [(Linf, lambda w: w.abs().sum()), (L2, lambda w: w.norm()), (L1, lambda w: w.abs().max())]
)
def test_radius_on_a_linear_model_is_the_distance_to_the_boundary(make, dual):
    draw = torch.Generator().manual_seed(3)
    w = torch.randn(5, dtype=torch.float64, generator=draw)
    x = torch.randn(40, 5, dtype=torch.float64, generator=draw)
    b = 0.3

    def network(p):
        return torch.stack([p @ w + b, -(p @ w) - b], 1) / 2

    distance = (x @ w + b) / dual(w)  # of label 0; negative where it is wrong already
    found = curve(Model(network, None), x, torch.zeros(40, dtype=torch.int64), make(1.5))
    reached, wrong = (distance > 0) & (distance < 1.5), distance < 0
    assert int(reached.sum()) > 5
    assert (found.radius[wrong] == 0).all()
    assert (found.radius[distance > 1.5] == math.inf).all()
    over = (found.radius - distance)[reached]
    assert (over >= -1e-9).all(), "a radius below the true distance is impossible"
    assert (over <= 1.5 / 1000).all()
    assert torch.allclose(found.gauge[reached], found.radius[reached] / 1.5)


def test_as_many_examples_as_features_is_not_ambiguous():
    """A factor per example is known to be one; N = d once read it as one per feature."""
    x = torch.tensor([[0.3, 0.3], [0.4, 0.4]])
    found = curve(lambda p: torch.stack([p.sum(1), 1 - p.sum(1)], 1), x, torch.zeros(2, dtype=torch.int64), Linf(0.3))
    assert found.radius.tolist() == pytest.approx([0.05, 0.15], abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.3, 0.1, 8 / 255, 1 / 3])
def test_the_last_epsilon_tested_is_the_whole_budget(epsilon):
    """C5: 0.1 + 0.1 + 0.1 > 0.3 once dropped the top of a grid. Only the full ε fools this model."""

    def network(p):
        return torch.stack([epsilon * (1 - 1e-9) - (p - 0.5).sum(1), (p - 0.5).sum(1) - epsilon * (1 - 1e-9)], 1)

    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    for factors in (None, [0.1 * k for k in range(1, 11)], torch.linspace(0, 1, 7)):
        found = curve(network, x, torch.zeros(1, dtype=torch.int64), Linf(epsilon), factors=factors)
        assert float(found.factors[-1]) == pytest.approx(1, abs=1e-15)
        assert found.broken[0].tolist() == [False] * (len(found.factors) - 1) + [True]


def test_success_may_vanish_again_and_the_first_one_is_refined():
    """Wrong only where 0.2 < x − 0.5 < 0.3: FGSM at a larger ε jumps over it."""

    def network(p):
        offset = (p - 0.5).sum(1)
        return torch.stack([torch.zeros_like(offset), 0.05 - (offset - 0.25).abs()], 1)

    x = torch.full((2, 1), 0.5, dtype=torch.float64)
    y = torch.zeros(2, dtype=torch.int64)
    found = curve(network, x, y, Linf(0.5), factors=[0.2, 0.5, 0.8, 1.0])
    assert found.broken.tolist() == [[False, True, False, False]] * 2
    assert found.accuracy.tolist() == [1, 0, 1, 1]
    assert found.radius.tolist() == pytest.approx([0.2, 0.2], abs=5e-4)
    assert (found.radius > 0.2).all()
    assert not attack("fgsm", network, x, y, Linf(0.5)).won.any()


def test_factors_are_sorted_and_checked():
    some = case("vector K=2")
    found = curve(some.network, some.x, some.y, some.budget("linf"), factors=[1.0, 0.25, 0.25, 0.5])
    assert found.factors.tolist() == [0.25, 0.5, 1.0]
    for bad in ([], [-0.1], [math.nan], [math.inf]):
        with pytest.raises(UsageError, match="factors"):
            curve(some.network, some.x, some.y, some.budget("linf"), factors=bad)
    for tolerance in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="tolerance"):
            curve(some.network, some.x, some.y, some.budget("linf"), tolerance=tolerance)


@pytest.mark.parametrize("count", [0, 1])
def test_no_example_and_one_example(count):
    some = case("series K=3", count=6).rows(list(range(count)))
    found = curve(some.network, some.x, some.y, some.budget("l2"), factors=GRID)
    assert found.broken.shape == (count, 6)
    assert found.radius.shape == (count,)
    assert found.accuracy.isnan().all() == (count == 0)
