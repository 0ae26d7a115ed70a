"""Laws of every budget, with and without limits: what `extreme`, `project`, `sample`, `gauge` promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from tests.tables import NAMES, answerable, budgets

from steepest.basis.streams import Stream

SHAPES = [(1,), (5,), (2, 3), (2, 2, 2)]


def case(name: str, shape: tuple[int, ...], seed: int, count: int = 7, eps: float = 0.4):
    """A fitted budget, limits that hold 0, and random directions, float64."""
    torch.manual_seed(seed)
    budget = budgets(shape, eps)[name].fitted((count, *shape))
    low = -torch.rand(count, *shape, dtype=torch.float64) * (torch.rand(count, *shape) < 0.8)
    high = torch.rand(count, *shape, dtype=torch.float64) * 0.5 * (torch.rand(count, *shape) < 0.8)
    if loss(budget):
        # Iterated answers are promised to be the best where the common set has an interior: no wall touches 0.
        low, high = low - 0.05, high + 0.05
    g = torch.randn(count, *shape, dtype=torch.float64) * (torch.rand(count, *shape) < 0.9)
    return budget, (low, high), g


def loss(budget) -> float:
    """The share of ε, in gain or distance, that an iterated answer may lack; 0 where there is a closed form."""
    return getattr(budget, "accuracy", 0.0)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).flatten(1).sum(1)


settings = given(
    name=st.sampled_from(NAMES),
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10_000),
    cut=st.booleans(),
)


@settings
def test_extreme_is_feasible_and_beats_every_sample(name, shape, seed, cut):
    budget, limits, g = case(name, shape, seed)
    limits = answerable(budget, limits, cut=cut)
    best = budget.extreme(g, limits)
    assert (budget.gauge(best) <= 1 + 1e-12).all()
    assert torch.allclose(budget.support(g, limits), dot(g, best), atol=1e-12)
    for step in range(20):
        other = budget.sample(g, Stream.of(seed, torch.arange(7)), step, limits)
        assert (budget.gauge(other) <= 1 + 1e-12).all()
        assert (dot(g, other) <= dot(g, best) + 1e-12 + loss(budget)).all()
        if limits is not None:
            assert ((other >= limits[0]) & (other <= limits[1])).all()
            assert ((best >= limits[0]) & (best <= limits[1])).all()


@settings
def test_projection_is_idempotent_fixes_inside_points_and_is_variationally_exact(name, shape, seed, cut):
    budget, limits, g = case(name, shape, seed)
    limits = answerable(budget, limits, cut=cut)
    stream = Stream.of(seed, torch.arange(7))
    for scale in (0.05, 1.0, 30.0):
        v = g * scale
        p = budget.project(v, limits)
        assert (budget.gauge(p) <= 1 + 1e-12).all()
        assert torch.allclose(budget.project(p, limits), p, atol=1e-10)
        assert (nearer(budget, v, p, stream, limits) >= -1e-9 - loss(budget)).all()
        if not budget.convex:
            continue
        for step in range(10):
            q = budget.sample(g, stream, step, limits)
            # ⟨v − P(v), q − P(v)⟩ ≤ 0 for all q characterises the Euclidean projection on a convex set.
            assert (dot(v - p, q - p) <= 1e-9 + loss(budget) * (1 + scale)).all()
            assert torch.allclose(budget.project(q, limits), q, atol=1e-10)
        corner = budget.extreme(v - p, limits)
        assert (dot(v - p, corner - p) <= (1e-8 + loss(budget)) * (1 + scale)).all()


@settings
def test_closed_walls_leave_iterated_answers_feasible_and_no_worse_than_staying(name, shape, seed, cut):
    budget, (low, high), g = case(name, shape, seed)
    closed = torch.rand(g.shape) < 0.2
    limits = low.masked_fill(closed, 0.0), high.masked_fill(closed, 0.0)
    for answer in (budget.extreme(g, limits), budget.project(g, limits)):
        assert (budget.gauge(answer) <= 1 + 1e-12).all()
        assert ((answer >= limits[0]) & (answer <= limits[1])).all()
    assert (budget.support(g, limits) >= -1e-12).all()
    assert (budget.project(g, limits) - g).flatten(1).norm(dim=1).sub(g.flatten(1).norm(dim=1)).le(1e-9).all()


def nearer(budget, v, p, stream, limits) -> torch.Tensor:
    """By how much the nearest of a few samples is farther from v than p; a projection leaves nothing nearer."""
    others = torch.stack([budget.sample(v, stream, step, limits) for step in range(10)])
    return (others - v).flatten(2).norm(dim=2).amin(0) - (p - v).flatten(1).norm(dim=1)


@settings
def test_projection_never_moves_points_apart(name, shape, seed, cut):
    budget, limits, g = case(name, shape, seed)
    if not budget.convex:
        return
    limits = answerable(budget, limits, cut=cut)
    other = torch.randn_like(g)
    apart = (budget.project(g, limits) - budget.project(other, limits)).flatten(1).norm(dim=1)
    assert (apart <= (g - other).flatten(1).norm(dim=1) + 1e-9 + loss(budget)).all()


@settings
def test_gauge_is_a_gauge(name, shape, seed, cut):
    budget, _, g = case(name, shape, seed)
    half = budget.scaled(0.5).gauge(g)
    assert torch.allclose(half, 2 * budget.gauge(g))
    inside = budget.project(g)
    if budget.convex:
        assert torch.allclose(budget.gauge(inside * 0.3), 0.3 * budget.gauge(inside), atol=1e-12)
    if budget.monotone:
        share = torch.rand(g.shape, dtype=g.dtype)
        assert (budget.gauge(inside * share) <= budget.gauge(inside) + 1e-12).all()
    assert (budget.gauge(torch.zeros_like(g)) == 0).all()
    low, high = budget.hull(g)
    assert ((inside >= low - 1e-12) & (inside <= high + 1e-12)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_independent_and_dtype_is_kept(name, count, dtype):
    budget, limits, g = case(name, (2, 3), 3, count)
    g = g.to(dtype)
    for answer in (budget.extreme(g, limits), budget.project(g, limits), budget.ascend(g, limits)):
        assert answer.dtype == dtype
        assert answer.shape == g.shape
    best, nearest = budget.extreme(g, limits), budget.project(g, limits)
    for row in range(count):
        index = torch.tensor([row])
        alone, cut = budget.rows(index), (limits[0][index], limits[1][index])
        for one, all_of_them in ((alone.extreme(g[index], cut), best), (alone.project(g[index], cut), nearest)):
            # Matrix products differ by batch size in their last bits.
            close = torch.allclose(one[0], all_of_them[row], rtol=1e-6 if dtype == torch.float32 else 1e-9, atol=1e-9)
            assert torch.equal(one[0], all_of_them[row]) or (loss(budget) > 0 and close)
        stream = Stream.of(5, torch.arange(count))
        drawn = budget.sample(g, stream, 2, limits)[row]
        # A norm summed over another batch shape may differ in its last bit.
        assert torch.allclose(alone.sample(g[index], stream.rows(index), 2, cut)[0], drawn, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["linf", "l1", "weighted", "masked linf", "masked l1"])
def test_extreme_solves_the_linear_programme(name):
    for seed in range(8):
        budget, limits, g = case(name, (5,), seed, count=1)
        low, high = (side.expand_as(g)[0].numpy() for side in budget.hull(g))
        bounds = list(zip(np.maximum(low, limits[0][0].numpy()), np.minimum(high, limits[1][0].numpy()), strict=True))
        cost, extra = -g[0].numpy(), {}
        if "l1" in name:  # δ = p − n with p, n ≥ 0 and Σ p + n ≤ ε
            cost = np.concatenate([cost, -cost])
            bounds = [(0, b) for _, b in bounds] + [(0, -a) for a, _ in bounds]
            extra = {"A_ub": np.ones((1, 10)), "b_ub": [float(budget.epsilon)]}
        solved = linprog(cost, bounds=bounds, **extra)
        assert -solved.fun == pytest.approx(float(budget.support(g, limits)), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_is_named_in_one_short_line(name):
    """It stands in tables, pages and messages, whatever tensors it holds."""
    for budget in (budgets((3, 4), 0.3)[name], budgets((3, 4), 0.3)[name].fitted((2, 3, 4))):
        assert len(repr(budget)) < 80 and "\n" not in repr(budget) and "tensor" not in repr(budget)


def test_scaling_per_example():
    g = torch.randn(3, 4, dtype=torch.float64)
    factor = torch.tensor([0.0, 1.0, 2.0])
    for name in NAMES:
        fitted, limits, _ = case(name, (4,), 0, count=3)
        limits = answerable(fitted, limits, cut=False)
        if fitted.convex:
            many, one = fitted.scaled(factor).support(g), fitted.support(g)
            assert torch.allclose(many, factor.double() * one, rtol=1e-5 + loss(fitted))
        assert torch.equal(fitted.scaled(0.0).extreme(g, limits), torch.zeros_like(g))
