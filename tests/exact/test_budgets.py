"""Known answers of single budgets: identities between sets, brute force, and solvers that share no code with ours."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.catalogue import kind_of, parse_budget, unit_of
from steepest.budgets.ellipsoid import Ellipsoid
from steepest.budgets.intersection import Intersection
from steepest.budgets.l0 import L0
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.pixel_l2 import PixelL2
from steepest.budgets.pixel_sum import PixelSum
from steepest.budgets.region import Region
from steepest.budgets.subspace import Subspace, low_frequency
from tests.tables import directions, metric

F64 = torch.float64


def drawn(seed: int, *shape: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """A gradient and limits that hold 0, some of them closed."""
    draw = torch.Generator().manual_seed(seed)
    g, low, high, keep = (torch.randn(shape, dtype=F64, generator=draw) for _ in range(4))
    return g, (-low.abs() * 0.2 * (keep > -1), high.abs() * 0.2 * (keep < 1))


def solved(objective, slope, region, limits, start):
    """The value of a smooth convex problem by sequential quadratic programming."""
    found = minimize(objective, start, jac=slope, bounds=list(zip(*limits, strict=True)), method="SLSQP",
                     constraints=region, options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    return float(found.fun)


# L0 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 2, 4, 6])
def test_l0_is_the_best_of_all_supports(k):
    for seed in range(5):
        g, (low, high) = drawn(seed, 1, 6)
        free = [torch.tensor([i in s for i in range(6)]) for s in itertools.combinations(range(6), min(k, 6))]
        best = max(float(torch.where(m, torch.maximum(g * low, g * high), 0).sum()) for m in free)
        budget = L0(k).fitted((1, 6))
        assert float(budget.support(g, (low, high))) == pytest.approx(best, abs=1e-14)
        near = min(float((torch.where(m, g.clamp(low, high), 0) - g).norm()) for m in free)
        assert float((budget.project(g, (low, high)) - g).norm()) == pytest.approx(near, abs=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_l0_of_pixels_is_the_best_of_all_sets_of_pixels(k):
    g, (low, high) = drawn(k, 1, 3, 2, 2)
    gain = torch.maximum(g * low, g * high).sum(1).reshape(4)
    best = max(float(gain[list(s)].sum()) for s in itertools.combinations(range(4), k))
    budget = L0(k, pixels=True).fitted((1, 3, 2, 2))
    assert float(budget.support(g, (low, high))) == pytest.approx(best)
    moved = budget.extreme(g, (low, high))
    assert int((moved != 0).any(1).sum()) <= k < int((moved != 0).sum())
    assert float(budget.gauge(moved)) <= 1


def test_l0_counts_whole_values_and_asks_for_a_box():
    x = torch.full((1, 5), 0.5)
    for factor, count in ((1.0, 3), (0.99, 2), (1 / 3, 1), (0.2, 0)):
        region = Region(L0(3), Box(0, 1), x).scaled(factor)
        assert int(region.norm(region.extreme(torch.ones(1, 5)))) == count
    with pytest.raises(UsageError, match="reach"):
        Region(L0(3), Box.of(None), x).extreme(torch.ones(1, 5))
    with pytest.raises(UsageError, match="box"):
        Region(L0(3), Box.of(None), x).sample(Stream.of(0, torch.arange(1)), 0)


def test_l0_draws_every_support_equally_often_and_values_uniformly():
    x = torch.tensor([0.5, 0.5, 0.0, 0.25], dtype=F64).expand(6000, -1)
    points = Region(L0(2), Box(0, 1), x).sample(Stream.of(0, torch.arange(6000)), 0)
    supports = ((points != x) * torch.tensor([1, 2, 4, 8])).sum(1)
    for pair in itertools.combinations((1, 2, 4, 8), 2):
        assert float((supports == sum(pair)).double().mean()) == pytest.approx(1 / 6, abs=0.02)
    moved = points[:, 3][points[:, 3] != 0.25]
    assert float(moved.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(moved.var()) == pytest.approx(1 / 12, abs=0.006)


# Pixels ----------------------------------------------------------------------------------------------------------


def test_hoelder_equality_of_pixel_budgets():
    g = drawn(0, 4, 3, 5, 5)[0]
    long = g.square().sum(1).sqrt().flatten(1)
    assert torch.allclose(PixelL2(0.3).support(g), 0.3 * long.sum(1))
    assert torch.allclose(PixelSum(0.3).support(g), 0.3 * long.amax(1))


def test_one_channel_is_linf_and_l1_and_one_pixel_is_l2():
    g, limits = drawn(1, 4, 1, 3, 3)
    for many, plain in ((PixelL2(0.3), Linf(0.3)), (PixelSum(0.3), L1(0.3))):
        for cut in (None, limits):
            assert torch.allclose(many.support(g, cut), plain.support(g, cut), rtol=1e-12)
            assert torch.allclose(many.project(g, cut), plain.project(g, cut), atol=1e-12)
    g, limits = drawn(2, 4, 6)
    for many in (PixelL2(0.3), PixelSum(0.3)):
        for cut in (None, limits):
            assert torch.allclose(many.extreme(g, cut), L2(0.3).extreme(g, cut), atol=1e-12)
            assert torch.allclose(many.project(g, cut), L2(0.3).project(g, cut), atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_sum_of_two_pixels_is_the_best_division_between_them(seed):
    """Against all divisions of ε on a grid, each pixel answered by its own ball."""
    g, limits = drawn(seed, 1, 3, 2)
    share = torch.linspace(0, 0.25, 20_001, dtype=F64)

    def both(answer):
        each = [(g[:, :, p], *(side[:, :, p] for side in limits)) for p in (0, 1)]
        sizes = (share, 0.25 - share)
        return sum(
            answer(L2(size), *(part.expand(len(share), 3) for part in parts))
            for size, parts in zip(sizes, each, strict=True)
        )

    best = both(lambda ball, v, low, high: ball.support(v, (low, high))).max()
    near = both(lambda ball, v, low, high: (ball.project(v, (low, high)) - v).square().sum(1)).min()
    # No division of the grid is better, and the grid is fine.
    assert -1e-12 <= float(PixelSum(0.25).support(g, limits) - best) < 2e-6
    assert -1e-12 <= float(near - (PixelSum(0.25).project(g, limits) - g).square().sum()) < 2e-6


def test_uniform_points_of_pixel_balls():
    like = torch.zeros(8000, 3, 2, dtype=F64)
    stream = Stream.of(0, torch.arange(8000))
    most = PixelL2(1.0).sample(like, stream, 0).square().sum(1).sqrt()
    total = PixelSum(1.0).sample(like, stream, 0).square().sum(1).sqrt().sum(1)
    for r in (0.5, 0.8, 0.95):
        assert float((most[:, 0] <= r).double().mean()) == pytest.approx(r**3, abs=0.02)
        assert float((most.amax(1) <= r).double().mean()) == pytest.approx(r**6, abs=0.02)
        assert float((total <= r).double().mean()) == pytest.approx(r**6, abs=0.02)


# Ellipsoids ------------------------------------------------------------------------------------------------------


def test_a_diagonal_ellipsoid_is_a_ball_in_other_units():
    w = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=F64)
    g, limits = drawn(3, 5, 4)
    budget = Ellipsoid(0.3, torch.diag(w**-2)).fitted((5, 4))
    for cut in (None, limits):
        scaled = None if cut is None else (cut[0] / w, cut[1] / w)
        assert torch.allclose(budget.support(g, cut), L2(0.3).support(g * w, scaled), atol=1e-7)
    assert torch.allclose(budget.extreme(g), w * L2(0.3).extreme(g * w), atol=1e-12)
    unit = Ellipsoid(0.3, torch.eye(4)).fitted((5, 4))
    for cut in (None, limits):
        assert torch.allclose(unit.extreme(g, cut), L2(0.3).extreme(g, cut), atol=1e-6)
        assert torch.allclose(unit.project(g, cut), L2(0.3).project(g, cut), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_an_ellipsoid_cut_by_a_box_meets_a_solver(seed):
    g, limits = drawn(seed, 1, 5)
    m, wide, eps = metric(5).numpy(), g[0].numpy(), 0.3
    sides = [side[0].numpy() for side in limits]
    room = {"type": "ineq", "fun": lambda d: eps**2 - d @ m @ d, "jac": lambda d: -2 * m @ d}
    best = -solved(lambda d: -d @ wide, lambda d: -wide, room, sides, np.zeros(5))
    budget = Ellipsoid(eps, metric(5)).fitted((1, 5))
    assert float(budget.support(g, limits)) == pytest.approx(best, abs=1e-6)
    near = solved(lambda d: np.square(d - wide).sum(), lambda d: 2 * (d - wide), room, sides, np.zeros(5))
    assert float((budget.project(g, limits) - g).square().sum()) == pytest.approx(near, abs=1e-6)


def test_uniform_points_of_an_ellipsoid():
    budget, like = Ellipsoid(2.0, metric(4)), torch.zeros(8000, 4, dtype=F64)
    points = budget.sample(like, Stream.of(0, torch.arange(8000)), 0)
    for r in (0.5, 0.8, 0.95):
        assert float((budget.gauge(points) <= r).double().mean()) == pytest.approx(r**4, abs=0.02)
    covariance = points.T @ points / 8000  # of a uniform point: ε² M⁻¹ / (d + 2)
    assert torch.allclose(covariance, 4 * torch.linalg.inv(metric(4)) / 6, atol=0.03)


@pytest.mark.parametrize(
    "bad", [torch.ones(2, 3), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.diag(torch.tensor([1.0, -1.0]))]
)
def test_a_matrix_that_is_no_metric_is_refused(bad):
    with pytest.raises(UsageError, match="Ellipsoid"):
        Ellipsoid(1.0, bad)


# Subspaces -------------------------------------------------------------------------------------------------------


def test_all_directions_are_no_restriction():
    g, limits = drawn(4, 5, 2, 3)
    for basis in (torch.eye(6).reshape(6, 2, 3), torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0))):
        budget = Subspace(L2(0.3), basis).fitted((5, 2, 3))
        for cut in (None, limits):
            assert torch.allclose(budget.extreme(g, cut), L2(0.3).extreme(g, cut), atol=1e-6)
            assert torch.allclose(budget.project(g, cut), L2(0.3).project(g, cut), atol=1e-6)


def test_low_frequencies_hold_no_high_ones():
    g, limits = drawn(5, 3, 2, 6, 8)
    k, n = torch.arange(6, dtype=F64)[:, None], torch.arange(6, dtype=F64)
    cosines = torch.cos(math.pi / 6 * (n + 0.5) * k)
    for budget in (low_frequency(L2(0.5), 3), low_frequency(Linf(0.1), 3)):
        for point in (budget.extreme(g, limits), budget.project(g, limits), budget.extreme(g)):
            energy = (cosines @ point).abs()
            assert float(energy[:, :, 3:].max()) < 1e-8
            assert (budget.inner.gauge(point) <= 1).all()
    assert float(low_frequency(L2(0.5), 3).extreme(g).flatten(1).norm(dim=1).min()) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(6))
def test_linf_in_a_subspace_is_a_linear_programme(seed):
    g, (low, high) = drawn(seed, 1, 6)
    rows = directions((6,)).numpy()
    for cut in (None, (low, high)):
        sides = [np.full(6, -0.3), np.full(6, 0.3)]
        if cut is not None:
            sides = [np.maximum(sides[0], low[0].numpy()), np.minimum(sides[1], high[0].numpy())]
        best = -linprog(-rows @ g[0].numpy(), A_ub=np.vstack([rows.T, -rows.T]),
                        b_ub=np.concatenate([sides[1], -sides[0]]), bounds=[(None, None)] * len(rows)).fun  # fmt: skip
        budget = Subspace(Linf(0.3), torch.as_tensor(rows)).fitted((1, 6))
        assert float(budget.support(g, cut)) == pytest.approx(best, abs=1e-5)


def test_uniform_points_of_a_ball_in_a_subspace():
    budget, like = Subspace(L2(2.0), directions((6,))).fitted((8000, 6)), torch.zeros(8000, 6, dtype=F64)
    size = budget.gauge(budget.sample(like, Stream.of(0, torch.arange(8000)), 0))
    for r in (0.5, 0.8, 0.95):
        assert float((size <= r).double().mean()) == pytest.approx(r**4, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_rounded_points_of_a_subspace_are_inside_to_one_unit_and_others_are_not(dtype):
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    region = Region(Subspace(L2(0.3), directions((6,))), Box(0, 1), x)
    point = region.extreme(torch.ones_like(x))
    assert region.contains(point).all()
    moved = point.clone()
    moved[:, 0] = (moved[:, 0] - 0.02).clamp_min(0)
    assert not region.contains(moved).any()


# Intersections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_an_intersection_meets_a_solver(seed):
    g, limits = drawn(seed, 1, 5)
    budget = Intersection(L2(0.3), Linf(0.15), L1(0.5)).fitted((1, 5))
    cap = [np.maximum(limits[0][0].numpy(), -0.15), np.minimum(limits[1][0].numpy(), 0.15)]
    # δ = p − n with p, n ≥ 0 makes the sum of magnitudes linear.
    sides = [np.zeros(10), np.concatenate([cap[1], -cap[0]])]
    both, wide = np.hstack([np.eye(5), -np.eye(5)]), g[0].numpy()
    room = [{"type": "ineq", "fun": lambda d: 0.09 - np.square(both @ d).sum()},
            {"type": "ineq", "fun": lambda d: 0.5 - d.sum()}]  # fmt: skip
    best = -solved(lambda d: -wide @ both @ d, lambda d: -both.T @ wide, room, sides, np.zeros(10))
    assert float(budget.support(g, limits)) == pytest.approx(best, abs=1e-5)
    assert (budget.support(g, limits) <= torch.stack([m.support(g, limits) for m in budget.members]).amin(0)).all()


def test_an_intersection_with_a_larger_set_is_the_smaller_one():
    g, limits = drawn(7, 5, 4)
    for cut in (None, limits):
        both = Intersection(L2(0.3), Linf(0.3)).fitted((5, 4))
        assert torch.allclose(both.extreme(g, cut), L2(0.3).extreme(g, cut), atol=1e-12)
        assert torch.allclose(both.project(g, cut), L2(0.3).project(g, cut), atol=1e-12)
    assert torch.equal(both.gauge(g), torch.maximum(L2(0.3).gauge(g), Linf(0.3).gauge(g)))
    with pytest.raises(UsageError, match="convex"):
        Intersection(L2(1.0), L0(3))


def test_texts_and_names():
    assert [repr(b) for b in parse_budget("l0:10,3")] == ["L0(3)", "L0(10)"]
    assert repr(parse_budget("pixels:5")[0]) == "L0(5, pixels=True)"
    assert kind_of(parse_budget("pixels:5")[0]) == "pixels"
    assert kind_of(Masked(parse_budget("pixel-l2:0.1")[0], torch.ones(3) > 0)) == "pixel-l2"
    assert kind_of(parse_budget("pixel-sum:0.1")[0]) == "pixel-sum"
    assert unit_of(low_frequency(L2(1.0), 2)) == "Euclidean length of the change"
    with pytest.raises(UsageError, match="Python"):
        parse_budget("ellipsoid:0.1")
