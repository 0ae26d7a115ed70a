"""Searches for the smallest perturbation reach the closed form |margin| / dual norm, up to their published factor."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import brentq, linprog
from torch import Tensor

from steepest.attacks.api import attack
from steepest.attacks.recipes import ATTACKS
from steepest.attacks.smallest import farthest, own_and_rivals
from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.reach import FAR, nearest, reach
from steepest.budgets.region import Region
from steepest.models.model import Model
from steepest.models.objectives import Targeted
from tests.conformance.cases import case
from tests.tables import CLOSED, NAMES, budgets, slow_under_full

DTYPE = torch.float64
SETS = {"linf": (Linf, 1), "l2": (L2, 2), "l1": (L1, torch.inf)}
"""A set and the order of its dual norm."""

WITHIN = {
    "deepfool": (1.02, 1.02),
    "fab(steps=30)": (1.0, 1.001),
    "fab(steps=30, targets=9)": (1.0, 1.001),
    "fmn": (1.0, 1.001),
    "ddn": (1.0, 1.002),
}
"""Between which multiples of the exact distance the radius lies on a linear model."""

CUT = WITHIN | {
    "deepfool": (1.0, 1.02),
    "fab(steps=30)": (1.0, 1.005),
    "fab(steps=30, targets=9)": (1.0, 1.005),
    "ddn": (1.0, 1.005),
}
"""The same inside the box, which cuts overshoots, and where the way back to x leads aside from the shortest one."""

FOLLOW_THE_LIKELIEST = ("fmn", "ddn")
"""They ascend one objective, so that of several classes the likeliest draws them, not always the nearest."""

PAIRS = [(name, kind) for name in WITHIN for kind in SETS if name != "ddn" or kind == "l2"]


def linear(classes: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, offsets, inputs and the classes that the model itself predicts; rows of unequal norm."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, size, dtype=DTYPE, generator=draw) * torch.linspace(0.5, 2, classes)[:, None]
    offsets = 0.1 * torch.randn(classes, dtype=DTYPE, generator=draw)
    x = torch.rand(12, size, dtype=DTYPE, generator=draw)
    return weights, offsets, x, (x @ weights.T + offsets).argmax(1)


def distances(weights: Tensor, offsets: Tensor, x: Tensor, y: Tensor, order: float) -> Tensor:
    """min over k ≠ y of (z_y − z_k) / ‖w_k − w_y‖ of the dual order: the exact distance without a box."""
    z = x @ weights.T + offsets
    gaps = z.gather(1, y[:, None]) - z
    duals = torch.linalg.vector_norm(weights[None] - weights[y][:, None], ord=order, dim=2)
    return (gaps / duals).scatter(1, y[:, None], torch.inf).amin(1)


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_radius_on_a_linear_model_is_the_closed_form(name, kind, classes):
    weights, offsets, x, y = linear(classes, 8)
    made, order = SETS[kind]
    exact = distances(weights, offsets, x, y, order)
    result = attack(name, Model(lambda p: p @ weights.T + offsets, None), x, y, made(50.0))
    ratio = result.radius / exact
    low, high = WITHIN[name]
    assert (ratio >= low - 1e-9).all(), ratio
    if classes > 2 and name in FOLLOW_THE_LIKELIEST:
        assert ratio.median() <= high, ratio
    else:
        assert (ratio <= high + 1e-9).all(), ratio
    assert result.won.all()
    assert torch.allclose(result.gauge * 50, result.radius)


@pytest.mark.parametrize("kind", SETS)
def test_fab_steps_to_the_distance_times_eta(kind):
    weights, offsets, x, y = linear(2, 8)
    made, order = SETS[kind]
    exact = distances(weights, offsets, x, y, order)
    network = Model(lambda p: p @ weights.T + offsets, None)
    for eta in (1.05, 1.1):
        first = attack(f"fab(steps=1, closing=0, eta={eta})", network, x, y, made(50.0))
        assert torch.allclose(first.radius, exact * eta, rtol=1e-9)
    back = attack("fab(steps=1, closing=0, beta=0.99)", network, x, y, made(50.0))
    assert torch.allclose(back.radius, exact * 1.05 * 0.99, rtol=1e-9)


@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_deepfool_crosses_once_and_stops(overshoot):
    weights, offsets, x, y = linear(6, 8)
    result = attack(f"deepfool(overshoot={overshoot})", Model(lambda p: p @ weights.T + offsets, None), x, y, L2(50.0))
    assert torch.allclose(result.radius, distances(weights, offsets, x, y, 2) * (1 + overshoot), rtol=1e-9)
    # x, the six gradients there, and the point that is wrong: it leaves with the gradients of that question
    assert result.forwards.tolist() == [3] * 12
    assert result.backwards.tolist() == [12] * 12


def test_deepfool_leaves_a_boundary_that_it_stands_on():
    x = torch.full((2, 3), 0.5, dtype=DTYPE)
    y = torch.zeros(2, dtype=torch.int64)
    result = attack("deepfool", lambda p: torch.stack([p.sum(1) - 1.5, 1.5 - p.sum(1)], 1), x, y, L2(1.0))
    assert result.won.all()
    assert (result.radius < 1e-5).all()


# Inside the box.


def in_the_box(region: Region, g: Tensor, gain: float, row: int) -> float:
    """The smallest multiple of the budget with this support, by another root-finder."""

    def short(t: float) -> float:
        return float(region.scaled(t).support(g)[row]) - gain

    return brentq(short, 0, 1e4, xtol=1e-13)


@pytest.mark.parametrize("name", slow_under_full(CLOSED))
def test_reach_is_the_root_of_the_support_for_every_budget(name):
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(6, 9, dtype=DTYPE, generator=draw)
    x[0], x[1, :5] = 1.0, 0.0
    g = torch.randn(6, 9, dtype=DTYPE, generator=draw)
    region = Region(budgets((9,), 0.1)[name], Box(0, 1), x)
    most = region.loose().support(g)
    for share in (1e-6, 0.1, 0.5, 0.9, 0.999):
        t = reach(region.budget, g, share * most, region.limits())
        delta = nearest(region.budget, g, share * most, region.limits())
        assert torch.allclose((g * delta).sum(1), share * most, rtol=1e-9)
        assert torch.allclose(region.budget.gauge(delta), t, rtol=1e-9)
        for row in (most > 0).nonzero().squeeze(1).tolist():
            assert t[row].item() == pytest.approx(in_the_box(region, g, float(share * most[row]), row), rel=1e-7)
    beyond = reach(region.budget, g, 1.001 * most, region.limits())
    assert (beyond[most > 0] == FAR).all()
    assert not reach(region.budget, g, torch.zeros(6, dtype=DTYPE), region.limits()).any()
    backwards = nearest(region.budget, -g, -0.5 * most, region.limits())
    assert torch.allclose((g * backwards).sum(1), 0.5 * most, rtol=1e-9)
    assert torch.equal(nearest(region.budget, 0 * g, most, region.limits()), 0 * g)


def test_reach_equals_linear_programming():
    draw = torch.Generator().manual_seed(2)
    x, g = torch.rand(4, 6, dtype=DTYPE, generator=draw), torch.randn(4, 6, dtype=DTYPE, generator=draw)
    limits = (-x, 1 - x)
    for row in range(4):
        most = float(torch.maximum(g[row] * -x[row], g[row] * (1 - x[row])).sum())
        wanted = torch.full((1,), 0.6 * most, dtype=DTYPE)
        cut = (limits[0][row : row + 1], limits[1][row : row + 1])
        # L∞: least t with −t ≤ δ ≤ t; L1: least Σ(u + v) with δ = u − v; both with ⟨g, δ⟩ = c inside the box.
        plane = [*g[row].tolist(), 0.0]
        sides = [[s * (i == j) for j in range(6)] + [-1.0] for i in range(6) for s in (1.0, -1.0)]
        box = [*zip(cut[0][0].tolist(), cut[1][0].tolist(), strict=True), (0, None)]
        cube = linprog([0.0] * 6 + [1.0], A_ub=sides, b_ub=[0.0] * 12, A_eq=[plane], b_eq=[wanted.item()], bounds=box)
        line = g[row : row + 1]
        assert reach(Linf(1.0).fitted((1, 6)), line, wanted, cut).item() == pytest.approx(cube.fun, rel=1e-9)
        halves = [*((0, float(h)) for h in cut[1][0]), *((0, float(-low)) for low in cut[0][0])]
        both = [[*g[row].tolist(), *(-g[row]).tolist()]]
        cross = linprog([1.0] * 12, A_eq=both, b_eq=[wanted.item()], bounds=halves)
        assert reach(L1(1.0).fitted((1, 6)), line, wanted, cut).item() == pytest.approx(cross.fun, rel=1e-9)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_radius_inside_the_box_is_the_root_of_the_support(name, kind):
    weights, offsets, x, _ = linear(2, 8, seed=3)
    x[:, :3], x[:, 3] = 1.0, 0.0
    offsets = offsets + torch.tensor([0.2, 0.0], dtype=DTYPE)
    z = x @ weights.T + offsets
    y = z.argmax(1)
    made, _ = SETS[kind]
    region = Region(made(1.0), Box(0, 1), x)
    g = (weights[1] - weights[0]) * torch.where(y == 0, 1.0, -1.0)[:, None]
    gaps = z.amax(1) - z.amin(1)
    possible = gaps < 0.999 * region.loose().support(g)
    assert int(possible.sum()) >= 4
    result = attack(name, Model(lambda p: p @ weights.T + offsets), x, y, made(50.0))
    low, high = CUT[name]
    for row in possible.nonzero().squeeze(1).tolist():
        exact = in_the_box(region, g, float(gaps[row]), row)
        assert low - 1e-9 <= result.radius[row].item() / exact <= high + 1e-9, row
    assert result.won[possible].all()


# What every one of them promises.

ALL = ["deepfool", "fab(steps=12)", "fab(steps=4, targets=3)", "ddn(steps=80)", "fmn(steps=40)"]


@pytest.mark.parametrize("name", ALL)
def test_a_success_beyond_the_budget_is_a_radius_and_no_success(name):
    weights, offsets, x, y = linear(3, 8)
    network, exact = Model(lambda p: p @ weights.T + offsets, None), distances(*linear(3, 8), 2)
    far = attack(name, network, x, y, L2(50.0))
    for eps in (0.2, 1e-3):
        near = attack(name, network, x, y, L2(eps))
        assert torch.equal(near.won, near.radius <= eps)
        assert torch.allclose(near.radius, far.radius, rtol=1e-6)  # what is searched does not depend on ε
        assert not near.won[exact > eps].any()
        assert torch.equal(near.point[~near.won], x[~near.won]) or (near.gauge <= 1).all()


@pytest.mark.parametrize("name", ALL)
def test_what_is_wrong_at_x_has_radius_zero_and_costs_one_question(name):
    some = case("series K=3")
    result = some.attack(name, "l2")
    wrong = some.margin(some.x) > 0
    assert wrong.any()
    assert (result.radius[wrong] == 0).all()
    assert (result.forwards[wrong] == 1).all()


@pytest.mark.parametrize("name", ALL)
def test_scale_and_shift_of_the_logits_change_no_radius(name):
    some = case("image K=10", seed=2, count=3)
    plain = some.attack(name, "l2").radius
    assert torch.isfinite(plain).all()
    for scale, shift in ((1e-3, 0.0), (1e4, 0.0), (1.0, 100.0)):
        model = Model(lambda p, a=scale, b=shift: a * some.network(p) + b)
        found = attack(name, model, some.x, some.y, some.budget("l2")).radius
        assert torch.allclose(found, plain, rtol=1e-3), (scale, shift)


@pytest.mark.parametrize("name", ALL)
def test_a_rotation_of_the_inputs_changes_no_euclidean_radius(name):
    weights, offsets, x, y = linear(4, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=DTYPE, generator=torch.Generator().manual_seed(5)))

    def network(p: Tensor) -> Tensor:
        return torch.tanh(p @ weights.T + offsets)

    plain = attack(name, Model(network, None), x, y, L2(50.0)).radius
    turned = attack(name, Model(lambda p: network(p @ turn.T), None), x @ turn, y, L2(50.0)).radius
    assert torch.allclose(plain, turned, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_masked_features_never_move_and_never_count(name):
    weights, offsets, x, y = linear(3, 8)
    free = torch.arange(8) >= 3
    held = Masked(L2(50.0), free)
    result = attack(name, Model(lambda p: p @ weights.T + offsets, None), x, y, held)
    z = x @ weights.T + offsets
    gaps = z.gather(1, y[:, None]) - z
    duals = ((weights[None] - weights[y][:, None]) * free).norm(dim=2)
    exact = (gaps / duals).scatter(1, y[:, None], torch.inf).amin(1)
    assert (result.radius / exact).quantile(0.75) < 1.03
    assert (result.radius / exact > 1 - 1e-9).all()
    assert torch.equal(result.point[:, :3], x[:, :3])


def test_fab_restarts_only_ever_improve():
    some = case("image K=10", seed=2, count=6)
    radii = [some.attack(f"fab(steps=8, restarts={count})", "linf").radius for count in (1, 2, 4)]
    assert (radii[1] <= radii[0]).all()
    assert (radii[2] <= radii[1]).all()


def test_fab_restarts_somewhere_else_by_the_seed():
    some, asked = case("image K=10", seed=2, count=2), []

    def watched(p: Tensor) -> Tensor:
        asked.append(p.detach().clone())
        return some.network(p)

    def third(seed: int) -> Tensor:
        asked.clear()
        attack("fab(steps=1, restarts=2, closing=0)", Model(watched), some.x[:1], some.y[:1], L2(50.0), seed=seed)
        assert torch.equal(asked[4], some.x[:1])
        return asked[6]  # of the second run: x, x with gradients, a random point

    first = third(0)
    assert not torch.equal(first, third(1))
    assert torch.equal(first, third(0))
    radius = attack("deepfool(overshoot=0)", Model(some.network), some.x[:1], some.y[:1], L2(50.0)).radius
    assert 0 < float((first - some.x[:1]).norm()) < float(radius)


def test_fmn_reaches_a_target():
    weights, offsets, x, y = linear(4, 6)
    aim = (y + 1) % 4
    network = Model(lambda p: p @ weights.T + offsets, None)
    result = attack("fmn", network, x, y, L2(50.0), objective=Targeted("margin", aim))
    assert result.won.all()
    assert torch.equal(network.logits(result.point).argmax(1), aim)


@pytest.mark.parametrize("name", NAMES)
def test_projecting_an_inner_point_leaves_it_unchanged(name):
    """A peer's FMN rescales inner points outwards to the sphere."""
    draw = torch.Generator().manual_seed(1)
    x = 0.3 + 0.4 * torch.rand(5, 9, dtype=DTYPE, generator=draw)
    region = Region(budgets((9,), 0.1)[name], Box(0, 1), x)
    sizes = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=DTYPE)
    inner = region.scaled(0.4 * sizes).extreme(torch.randn(5, 9, dtype=DTYPE, generator=draw))
    kept = region.scaled(sizes).project(inner)
    assert torch.allclose(kept, inner, rtol=0, atol=1e-15)


def test_helpers_of_the_family():
    z = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    assert own_and_rivals(z, torch.tensor([2]), 3).tolist() == [[2, 1, 3]]
    assert own_and_rivals(z, torch.tensor([1]), 9).tolist() == [[1, 3, 2, 0]]
    region = Region(L2(0.1), Box(0, 1), torch.tensor([[0.2, 0.7]]))
    assert farthest(region).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    "text",
    ["deepfool(steps=-1)", "deepfool(classes=1)", "deepfool(overshoot=-0.1)", "fab(steps=0)", "fab(beta=1.0)",
     "fab(eta=0.5)", "fab(alpha_max=2)", "fab(closing=-1)", "fab(restarts=0)", "ddn(gamma=2)", "ddn(norm0=-1)",
     "fmn(step=-1)", "fmn(gamma=1.5)", "fmn(gamma_last=-0.1)"],
)  # fmt: skip
def test_parameters_outside_their_range_are_refused(text):
    with pytest.raises(UsageError, match="not allowed"):
        ATTACKS.build(text)
