"""Laws of every region: feasible exactly, in every precision; the uniform law; ε in every form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tables import NAMES, budgets, needs_a_box

from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.basis.rounding import _step
from steepest.basis.streams import Stream
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.region import Region

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def exactly_inside(region: Region, point: torch.Tensor) -> bool:
    """The check of an outsider: float64, no tolerance, no code of ours."""
    delta = point.double() - region.x.double()
    lower, upper = region.box.bounds(region.x)
    in_box = bool(((point.double() >= lower) & (point.double() <= upper)).all())
    # What no grid of numbers meets (a subspace) is judged to one unit in the last place.
    size = region.budget.gauge(delta) if region.budget.monotone else region.gauge(point)
    return in_box and bool((size <= 1).all())


@given(
    name=st.sampled_from(NAMES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 10_000),
    eps=st.sampled_from([8 / 255, 0.1, 0.3, 1e-5, 0.0, 2.5]),
    box=st.sampled_from([(0.0, 1.0), (-2.117903, 2.640001), (-math.inf, math.inf)]),
)
def test_every_point_is_feasible_exactly(name, dtype, seed, eps, box):
    torch.manual_seed(seed)
    shape = (2, 4)
    lower, upper = max(box[0], -3.0), min(box[1], 3.0)
    x = (torch.rand(16, *shape, dtype=torch.float64) * (upper - lower) + lower).to(dtype)
    x = torch.where(torch.rand(x.shape) < 0.2, torch.tensor(0.0, dtype=dtype).clamp(x.min(), x.max()), x)
    x = x[Box(*box).contains(x)]
    g = torch.randn(x.shape).to(dtype)
    region, stream = Region(budgets(shape, eps)[name], Box(*box), x), Stream.of(seed, torch.arange(len(x)))
    if math.isinf(box[0]) and needs_a_box(region.budget, region.x):
        with pytest.raises(UsageError, match="give the model a box"):
            region.extreme(torch.ones_like(x))
        return
    points = {
        "extreme": region.extreme(g),
        "project": region.project(x + g),
        "sample": region.sample(stream, 0),
        "clipped": region.sample_clipped(stream, 0),
        "corner": region.corner(stream, 1),
        "ascend": region.ascend(region.sample(stream, 2), g.clone(), 0.7),
    }
    lower_bound, upper_bound = region.bounds
    for what, point in points.items():
        assert point.dtype == dtype, what
        assert exactly_inside(region, point), what
        assert ((point >= lower_bound) & (point <= upper_bound)).all(), what
    again = Region(region.budget, region.box, x)
    _ = again.bounds
    assert torch.equal(again.extreme(g), points["extreme"])  # the short way and the long way agree
    assert region.contains(points["extreme"]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_256_pixel_values_at_the_usual_epsilons(dtype):
    x = (torch.arange(256, dtype=torch.float64) / 255).to(dtype)[:, None]
    for steps in (1, 2, 4, 8, 16):
        region = Region(Linf(steps / 255), Box(0, 1), x)
        for sign in (1.0, -1.0):
            point = region.extreme(torch.full_like(x, sign))
            assert exactly_inside(region, point)
            if dtype == torch.float64:
                continue  # there x + ε is itself rounded, and the check cannot see beyond it
            # Nothing is given away: one more step of the precision would leave the region.
            beyond = _step(point, torch.full_like(point, sign * math.inf))
            outside = ((beyond.double() - x.double()).abs() > steps / 255) | (beyond > 1) | (beyond < 0)
            assert outside.all()


def test_contains_refuses_the_smallest_excess():
    x = torch.tensor([[0.5]])
    region = Region(Linf(0.25), Box(0, 1), x)
    assert region.contains(torch.tensor([[0.75]])).all()
    assert not region.contains(torch.nextafter(torch.tensor([[0.75]]), torch.tensor(1.0))).any()
    assert not region.contains(torch.tensor([[math.nan]])).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_step_of_the_precision(dtype):
    values = torch.tensor([0.0, 1.0, -1.0, 0.3, -0.7, 100.0]).to(dtype)
    for goal in (math.inf, -math.inf):
        moved = _step(values, torch.full_like(values, goal))
        between = (values.double() + moved.double()) / 2
        assert ((moved > values) if goal > 0 else (moved < values)).all()
        nearest = between[1:].to(dtype)  # nothing of this precision lies strictly between
        assert ((nearest == values[1:]) | (nearest == moved[1:])).all()


# The uniform law -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "norm"), [(Linf(2.0), math.inf), (L2(2.0), 2), (L1(2.0), 1)])
def test_radius_of_uniform_points_in_a_free_ball(budget, norm):
    x = torch.zeros(20_000, 5, dtype=torch.float64)
    points = Region(budget, Box.of(None), x).sample(Stream.of(0, torch.arange(len(x))), 0)
    radius = torch.linalg.vector_norm(points, ord=norm, dim=1) / 2
    assert float(radius.mean()) == pytest.approx(5 / 6, abs=0.004)
    for r in (0.5, 0.8, 0.95):
        assert float((radius <= r).double().mean()) == pytest.approx(r**5, abs=0.012)
    assert points.mean(0).abs().max() < 0.03


def test_corners_of_a_product_of_intervals_are_fair_coins_and_belong_to_the_example():
    x = torch.full((4_000, 5), 0.5, dtype=torch.float64)
    region, stream = Region(Linf(0.25), Box(0, 1), x), Stream.of(0, torch.arange(len(x)))
    points = region.corner(stream, 0)
    assert bool(((points == 0.25) | (points == 0.75)).all())
    assert (points.mean(0) - 0.5).abs().max() < 0.01
    assert (torch.corrcoef(points.T) - torch.eye(5)).abs().max() < 0.06
    some = torch.tensor([3_999, 7])
    assert torch.equal(region.rows(some).corner(stream.rows(some), 0), points[some])
    assert region.bounds[0].shape == x.shape  # known bounds change no answer
    assert torch.equal(region.corner(stream, 0), points)


def test_signs_are_the_halves_of_the_uniform_numbers():
    stream = Stream.of(3, torch.arange(50))
    assert torch.equal(stream.signs(2, (3, 4)), torch.where(stream.uniform(2, (3, 4)) < 0.5, -1.0, 1.0).double())


@pytest.mark.parametrize("budget", [Linf(1.0), L2(1.0), L1(1.0)])
@pytest.mark.parametrize("x", [(0.9, 0.5, 0.2), (1.0, 0.0, 0.5), (0.7, 0.6, 0.1)])
def test_points_in_a_cut_ball_are_uniform(budget, x):
    """Against rejection from the box, coordinate by coordinate and for products of coordinates."""
    x = torch.tensor(x, dtype=torch.float64).expand(20_000, -1)
    region = Region(budget, Box(0, 1), x)
    points = region.sample(Stream.of(1, torch.arange(len(x))), 0)
    proposals = torch.rand(200_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    accepted = proposals[budget.gauge(proposals - x[0]) <= 1]
    for moment in (lambda p: p, lambda p: p**2, lambda p: p * p.roll(1, 1), lambda p: (p - x[0]).abs()):
        assert torch.allclose(moment(points).mean(0), moment(accepted).mean(0), atol=0.008)
    for q in (0.1, 0.5, 0.9):
        assert torch.allclose(points.quantile(q, 0), accepted.quantile(q, 0), atol=0.015)


def test_a_mask_does_not_thin_the_ball():
    x = torch.full((20_000, 6), 0.5, dtype=torch.float64)
    free = torch.tensor([True, False, True, False, True, False])
    points = Region(Masked(L2(0.3), free), Box.of(None), x).sample(Stream.of(0, torch.arange(len(x))), 0)
    radius = (points - x).norm(dim=1) / 0.3
    assert ((points - x)[:, ~free] == 0).all()
    assert float((radius <= 0.8).double().mean()) == pytest.approx(0.8**3, abs=0.012)


# ε in every form -------------------------------------------------------------------------------------------------


def test_epsilon_per_example_and_per_feature():
    x = torch.full((4, 3, 2, 2), 0.5)
    each = torch.tensor([0.0, 0.1, 0.2, 0.3])
    for budget in (Linf(each), L2(each), L1(each)):
        region = Region(budget, Box(0, 1), x)
        assert torch.allclose(region.norm(region.extreme(torch.ones_like(x))), each.double(), atol=1e-6)
        part = region.rows(torch.tensor([2, 3]))
        assert torch.allclose(part.norm(part.extreme(torch.ones_like(part.x))), each[2:].double(), atol=1e-6)
    channel = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    moved = Region(Linf(channel), Box(0, 1), x).extreme(torch.ones_like(x)) - x
    assert torch.allclose(moved, channel.expand_as(x), atol=1e-6)
    table = torch.full((5, 3), 0.5)
    assert torch.allclose(
        Region(Linf(torch.tensor([0.1, 0.2, 0.3])), Box(0, 1), table).extreme(torch.ones_like(table))[0],
        torch.tensor([0.6, 0.7, 0.8]),
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Linf(-0.1), "-0.1"),
        (lambda: L2(math.nan), "nan"),
        (lambda: Region(Linf(torch.ones(3)), Box(0, 1), torch.zeros(3, 3)), r"\[3, 1\]"),
        (lambda: Region(Linf(torch.ones(4)), Box(0, 1), torch.zeros(3, 5)), r"\(4,\)"),
        (lambda: Region(L2(torch.ones(1, 3)), Box(0, 1), torch.zeros(5, 3)), "Weighted"),
        (lambda: Region(Masked(L2(1.0), torch.ones(4, dtype=torch.bool)), Box(0, 1), torch.zeros(5, 3)), r"\(4,\)"),
        (lambda: Masked(L2(1.0), torch.ones(4)), "boolean"),
        (lambda: Region(Linf(0.1), Box(torch.zeros(4), 1), torch.zeros(5, 3)), r"\(4,\)"),
        (lambda: Box(1, 0), "lower"),
    ],
)
def test_bad_budgets_are_refused_with_the_value_and_the_remedy(make, said):
    with pytest.raises(UsageError, match=said):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_points_for_training_are_those_of_the_exact_questions_up_to_a_rounding(name):
    x = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(0))
    x[0], x[1] = 0.0, 1.0
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    region, stream = Region(budgets((2, 4), 0.1)[name], Box(0, 1), x), Stream.of(0, torch.arange(6))
    noise = region.scaled(2.0).noise(stream, 0)
    pushed = region.push(noise, g.clone(), 0.5, reach=2.5)
    assert torch.allclose(noise, region.scaled(2.0).sample_clipped(stream, 0), atol=1e-6)
    assert torch.allclose(pushed, region.scaled(2.5).ascend(noise, g.clone(), 0.2), atol=1e-6)
    assert bool(region.box.contains(noise).all()) and bool(region.box.contains(pushed).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_region_around_other_points_is_the_one_made_there(name):
    torch.manual_seed(0)
    x, g, box = torch.rand(6, 2, 4), torch.randn(6, 2, 4), Box(0, 1)
    budget = budgets((2, 4), 0.1)[name].fitted(tuple(x.shape))
    made, moved = Region(budget, box, x), Region(budget.rows(torch.arange(2)), box, x[:2]).around(budget, x)
    assert torch.equal(made.extreme(g), moved.extreme(g)) and torch.equal(made.project(x + g), moved.project(x + g))
    assert exactly_inside(moved, moved.project(x + g))
