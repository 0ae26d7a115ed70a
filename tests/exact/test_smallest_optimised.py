"""Smallest successes by penalty and by bisection: linear models, whose distances are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.contract import Status
from steepest.attacks.library.square import RandomSquares, striped
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import UsageError
from steepest.budgets.catalogue import BUDGETS
from tests.conformance.cases import Case, case, layers

CW = "cw(steps=40, searches=5, lr=0.05, c=0.1)"
EAD = "ead(steps=40, searches=5, lr=0.03, c=0.1)"
SIGMA = "sigma-zero(steps=200)"
BISECT = "bisection(attack='fgsm', rounds=20)"
needs_l0 = pytest.mark.skipif("l0" not in BUDGETS.names(), reason="the budget l0 is not here")
W = torch.tensor([[3.0, 1.0], [1.0, 2.0], [-2.0, 1.0], [0.5, -4.0]]).double()
REACH = torch.tensor([0.6, 0.3, 0.9, 0.2]).double()


class Own(torch.nn.Module):
    """Row n is fooled exactly where ⟨wₙ, x − ½⟩ > reachₙ; the last two features say which row it is."""

    def __init__(self, w: Tensor, reach: Tensor, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.w, self.reach, self.scale, self.shift = w, reach, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, -1].detach().round().long()
        z = ((x[:, :-1] - 0.5) * self.w[rows]).sum(1) - self.reach[rows]
        return self.scale * torch.stack([-z / 2, z / 2], 1) + self.shift


def posed(scale: float = 1.0, shift: float = 0.0, *, low: float = -1.0, high: float = 2.0):
    """(model, x, y, mask): rows at x = ½ in a box whose faces are far; the last feature is frozen."""
    x = torch.cat([torch.full((4, 2), 0.5), torch.arange(4)[:, None]], 1).double()
    box = (torch.tensor([low, low, 0.0]), torch.tensor([high, high, 4.0]))
    model = st.Model(Own(W, REACH, scale, shift), box=box)
    return model, x, torch.zeros(4, dtype=torch.int64), torch.tensor([True, True, False])


def radius(call: str, budget: st.Budget, **how: float) -> Tensor:
    model, x, y, mask = posed(**how)
    return st.attack(call, model, x, y, st.Masked(budget, mask)).radius


EXACT = {"l2": REACH / W.norm(dim=1), "l1": REACH / W.abs().amax(1), "linf": REACH / W.abs().sum(1)}


def test_cw_finds_the_distance_to_one_percent():
    found = radius(CW, st.L2(100.0))
    assert (found >= EXACT["l2"] * (1 - 1e-9)).all()
    assert (found <= EXACT["l2"] * 1.01).all()


def test_ead_finds_the_l1_distance_and_without_shrinkage_the_euclidean_point():
    found = radius(EAD, st.L1(100.0))
    assert (found >= EXACT["l1"] * (1 - 1e-9)).all()
    assert (found <= EXACT["l1"] * 1.05).all()
    plain = radius(EAD.replace(")", ", beta=0.0)"), st.L1(100.0))
    along_w = REACH * W.abs().sum(1) / W.square().sum(1)
    assert torch.allclose(plain, along_w, rtol=0.01)
    assert (plain > 1.1 * EXACT["l1"]).all()


@pytest.mark.parametrize("attack", ["fgsm", "pgd(steps=20)", "bim(steps=40)"])
@pytest.mark.parametrize(("kind", "budget"), [("l2", st.L2(1.0)), ("l1", st.L1(1.0)), ("linf", st.Linf(1.0))])
def test_bisection_finds_the_distance_to_1e_4(kind, budget, attack):
    found = radius(f"bisection(attack={attack!r}, rounds=22)", budget)
    assert (found >= EXACT[kind] * (1 - 1e-9)).all()
    assert (found <= EXACT[kind] * (1 + 1e-4)).all()


def test_inside_the_box_the_distance_is_the_longer_one():
    """w = (3, 1), 0.6 to gain, and only 0.1 of room along the first feature: δ = (0.1, 0.3)."""

    def model(x: Tensor) -> Tensor:
        z = 3 * x[:, 0] + x[:, 1] - 0.6 - 3.2
        return torch.stack([-z / 2, z / 2], 1)

    x, y = torch.tensor([[0.9, 0.5]]).double(), torch.tensor([0])
    for call, budget, exact in [
        ("cw(steps=80, searches=5, lr=0.1, c=0.1)", st.L2(1.0), math.hypot(0.1, 0.3)),
        (EAD, st.L1(1.0), 0.4),
        (BISECT, st.L2(1.0), math.hypot(0.1, 0.3)),
        (BISECT, st.L1(1.0), 0.4),
    ]:
        result = st.attack(call, model, x, y, budget)
        assert exact * (1 - 1e-9) <= float(result.radius) <= exact * 1.05, call
        assert torch.allclose(result.point, torch.tensor([[1.0, 0.8]]).double(), atol=0.02), call


def test_values_on_the_faces_of_the_box_move():
    """tanh is flat there: a search that starts at the very face would never leave it."""
    x, y = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double(), torch.tensor([0, 0])

    def model(x: Tensor) -> Tensor:
        z = x[:, 0] - x[:, 1] + 1 - 0.2
        return torch.stack([-z, z], 1)

    result = st.attack("cw(steps=100, searches=4, lr=0.2, c=1.0)", model, x, y, st.L2(1.0))
    assert result.won.all()
    assert torch.allclose(result.radius, torch.full((2,), 0.2 / math.sqrt(2)).double(), rtol=0.01)


def test_of_several_classes_the_nearest_is_found_not_the_likeliest():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]]).double()
    bias = torch.tensor([0.0, -0.55, -5.6]).double()  # margins at ½: 0.05 / 1 and 0.6 / 10

    def model(x: Tensor) -> Tensor:
        return x @ rows.T + bias

    x, y, call = torch.full((1, 2), 0.5).double(), torch.tensor([0]), "cw(steps=60, searches=5, lr=0.02, c=0.1)"
    assert float(st.attack(call, model, x, y, st.L2(1.0)).radius) == pytest.approx(0.05, rel=0.01)
    aimed = st.attack(call, model, x, y, st.L2(1.0), objective=st.Targeted("margin", 2))
    assert float(aimed.radius) == pytest.approx(0.06, rel=0.05)


@pytest.mark.parametrize(
    ("call", "budget", "kind"),
    [
        pytest.param("cw(steps=40, lr=0.05)", st.L2, "l2", marks=pytest.mark.full),
        ("ead(steps=10, lr=0.05)", st.L1, "l1"),
        ("bisection(rounds=6)", st.L2, "l2"),
    ],
)
def test_the_broken_set_does_not_depend_on_the_scale_of_the_logits(call, budget, kind):
    middle = float(EXACT[kind].sort().values[1:3].mean())
    for scale, shift in [(1e-3, 0.0), (1.0, 0.0), (1e4, 0.0), (1.0, 50.0), (1.0, -50.0)]:
        model, x, y, mask = posed(scale, shift)
        won = st.attack(call, model, x, y, st.Masked(budget(middle), mask)).won
        assert torch.equal(won, EXACT[kind] < middle), (scale, shift)


CALLS = [("cw(steps=5)", st.L2(0.5)), ("ead(steps=5)", st.L1(0.5)), ("bisection(rounds=3)", st.Linf(0.5))]


@pytest.mark.parametrize(("call", "budget"), CALLS)
def test_an_example_wrong_at_x_has_radius_0_and_leaves_at_once(call, budget):
    model, x, y, mask = posed()
    result = st.attack(call, model, x, 1 - y, st.Masked(budget, mask))
    assert result.won.all()
    assert (result.radius == 0).all()
    assert (result.forwards == 1).all()
    assert torch.equal(result.point, x)


@pytest.mark.parametrize(("call", "budget", "kind"), [(CW, st.L2, "l2"), (EAD, st.L1, "l1")])
def test_a_success_beyond_the_budget_is_a_radius_and_no_success(call, budget, kind):
    model, x, y, mask = posed()
    small = st.attack(call, model, x, y, st.Masked(budget(0.01), mask))
    assert not small.won.any()
    assert (small.gauge <= 1).all()
    assert (small.status == Status.EXHAUSTED).all()
    assert (small.radius <= EXACT[kind] * 1.05).all()
    assert torch.equal(small.radius, radius(call, budget(100.0))), "the search depends on ε"


@pytest.mark.parametrize(
    ("call", "budget"),
    [("cw(steps=10, searches=5, lr=0.1)", st.L2(300.0)), ("ead(steps=10, searches=5)", st.L1(300.0))],
)
def test_the_search_is_the_same_in_other_units(call, budget):
    def found(unit: float) -> Tensor:
        def network(x: Tensor) -> Tensor:
            z = (x / unit - 0.5) @ W.T - 0.1
            return torch.cat([torch.zeros_like(z[:, :1]), z], 1)

        x = torch.full((1, 2), 0.5 * unit).double()
        return st.attack(call, st.Model(network, box=(0, unit)), x, torch.tensor([0]), budget).radius / unit

    assert found(1.0).isfinite().all()
    assert torch.allclose(found(255.0), found(1.0), rtol=1e-6)


class Confident:
    """Margin at least κ beyond the boundary."""

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs[:, 1] - outputs[:, 0] >= self.kappa

    def rows(self, index: Tensor) -> Confident:
        return self


@pytest.mark.parametrize(("call", "budget", "kind"), [(CW, st.L2, "l2"), (EAD, st.L1, "l1")])
def test_confidence_drives_the_search_beyond_the_boundary(call, budget, kind):
    model, x, y, mask = posed()
    wanted = EXACT[kind] * (REACH + 0.2) / REACH
    deep = call.replace(")", ", confidence=0.2)")
    found = st.attack(deep, model, x, y, st.Masked(budget(100.0), mask), goal=Confident(0.2))
    assert found.won.all()
    assert torch.allclose(found.radius, wanted, rtol=0.04)
    shallow = st.attack(call, model, x, y, st.Masked(budget(100.0), mask))
    assert (shallow.radius < wanted).all()


@pytest.mark.parametrize(
    ("call", "budget"), [("fmn(steps=40)", st.L2(1.0)), (CW, st.L2(1.0)), (EAD, st.L1(1.0)), (SIGMA, st.Linf(1.0))]
)
def test_an_objective_of_ones_own_is_followed_as_it_is(call, budget):
    """y holds real numbers, or nothing at all: a margin could not be computed."""

    class Beyond:
        def __call__(self, outputs: Tensor, y: object) -> Tensor:
            return outputs[:, 0] > 0.3

        def rows(self, index: Tensor) -> Beyond:
            return self

    x = torch.full((3, 4), 0.5).double()
    weights = torch.tensor([3.0, 1.0, -2.0, 0.5]).double()
    model = st.Model(lambda x: ((x - 0.5) @ weights)[:, None] + torch.zeros(1, 2), box=(0, 1))
    if call == SIGMA:
        budget = BUDGETS.entry("l0").factory(4)
    for y in (torch.tensor([0.1, 0.2, 0.3]), None):
        found = st.attack(call, model, x, y, budget, objective=lambda z, y: z[:, 0] - 0.3, goal=Beyond())
        assert found.won.all(), y


def test_cw_needs_a_finite_box_and_says_so():
    x, y = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(UsageError, match=r"not finite.*box=\(low, high\)"):
        st.attack("cw(steps=1)", st.Model(torch.nn.Linear(2, 2), box=None), x, y, st.L2(1.0))
    assert st.attack("ead(steps=1)", st.Model(torch.nn.Linear(2, 2), box=None), x, y, st.L1(1.0)).point.isfinite().all()


@pytest.mark.parametrize(
    "call",
    [
        "cw(steps=0)", "cw(searches=0)", "cw(lr=0.0)", "cw(c=-1.0)", "cw(confidence=-1.0)", "ead(steps=0)",
        "ead(beta=-1.0)", "sigma-zero(steps=0)", "sigma-zero(sigma=0.0)", "sigma-zero(factor=-1.0)",
        "bisection(rounds=-1)", "bisection(attack='pdg')",
    ],
)  # fmt: skip
def test_parameters_outside_their_range_are_refused(call):
    with pytest.raises(UsageError):
        ATTACKS.build(call)


def test_more_rounds_never_end_farther_away():
    def network(x: Tensor) -> Tensor:
        z = torch.sin(5 * x @ W.T).sum(1) - 1.0
        return torch.stack([-z, z], 1)

    x = torch.rand(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    last = torch.full((12,), math.inf).double()
    for rounds in (0, 1, 2, 5, 9):
        found = st.attack(f"bisection(attack='pgd(steps=5)', rounds={rounds})", network, x, y, st.L2(0.5)).radius
        assert (found <= last).all()
        last = found
    assert last.isfinite().any()
    full = st.attack("pgd(steps=5)", network, x, y, st.L2(0.5))
    assert torch.isfinite(last)[full.won].all(), "a success of the attack itself was lost"


def test_where_success_is_not_monotone_the_smallest_met_is_kept():
    """Fooled for 0.1 < x − ½ < 0.2 and beyond 0.4; at 0.3 the attack fails, and a bracket would end at 0.4."""

    def network(x: Tensor) -> Tensor:
        t = x[:, 0] - 0.5
        z = torch.maximum(0.05 - (t - 0.15).abs(), t - 0.4) + 1e-9
        return torch.stack([-z, z], 1)

    x, y = torch.full((1, 1), 0.5).double(), torch.tensor([0])
    jump = st.attack("bisection(attack='fgsm', rounds=12)", network, x, y, st.Linf(0.5), objective=lambda z, y: z[:, 1])
    walk = st.attack("bisection(attack='bim(steps=10)', rounds=12)", network, x, y, st.Linf(0.5))
    assert float(walk.radius) == pytest.approx(0.1, abs=1e-3)
    assert float(jump.radius) < 0.41
    assert walk.won.all()


def test_a_success_below_a_failed_budget_opens_the_bracket_again():
    """Fooled for 0.15 < δ < 0.22 and beyond 0.95, walked in steps of 0.28 ε: ε = 1 finds 1, ½ fails, ¾ finds 0.21."""

    def network(x: Tensor) -> Tensor:
        t = x[:, 0]
        z = torch.maximum(0.035 - (t - 0.185).abs(), t - 0.95)
        return torch.stack([-z, z, t - 100], 1)

    x, y = torch.zeros(1, 1).double(), torch.tensor([0])
    call = "bisection(attack='bim(steps=4, step=0.28)', rounds={})"
    found = [
        float(st.attack(call.format(rounds), network, x, y, st.Linf(1.0), objective=lambda z, y: z[:, 2]).radius)
        for rounds in (0, 1, 2, 16)
    ]
    assert found == pytest.approx([1.0, 1.0, 0.21, 0.15], rel=1e-3)


@pytest.mark.parametrize("budget", [st.L2(0.4), st.Linf(0.2)], ids=repr)
def test_bisection_of_square_gives_each_example_its_own_size(budget):
    """Every share of the budget is a size per example; with as many examples as columns it fits a row as well."""
    some = case("image K=10", count=4)
    x = some.x[..., :4].contiguous()
    network = layers((2, 5, 4), 10, seed=0).double()
    some = Case(network, x, network(x).argmax(1))
    ids, text = torch.arange(4), "bisection(attack='square(queries=20)', rounds=4)"
    whole = some.attack(text, budget, ids=ids)
    assert (whole.gauge <= 1).all() and whole.won.any()
    for row in range(4):
        alone = some.rows([row]).attack(text, budget, ids=ids[[row]])
        assert torch.allclose(alone.point[0], whole.point[row], atol=1e-9)
        assert torch.equal(alone.forwards[0], whole.forwards[row])


def test_square_starts_and_moves_at_the_end_of_each_examples_budget():
    """As many examples as columns: a size per example would fit along the columns too."""
    x, y = torch.full((4, 1, 5, 4), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    model = st.Model(lambda p: torch.stack([p.flatten(1).sum(1), 0 * p.flatten(1).sum(1)], 1))
    for budget in (st.L2(1.0), st.L1(1.0), st.Linf(1.0)):
        problem = pose(model, x, y, budget)
        problem = replace(problem, region=problem.region.scaled(torch.tensor([0.1, 0.2, 0.3, 0.4])))
        search, point = RandomSquares(steps=5, p=0.5), striped(problem, 0)
        state = search.init(problem, point)
        for number in range(3):
            assert torch.allclose(problem.region.gauge(point), torch.ones(4).double(), atol=1e-9)
            found = problem.model.evaluate(point, y, problem.objective, problem.goal)
            point, state = search.step(problem, found, state, number)


def test_bisection_serves_what_its_attack_serves():
    made = st.recipes.bisection(attack="noise(points=5)")
    assert made.needs == "labels"
    assert st.recipes.bisection(attack="cw(steps=2)").budgets == ("l2",)
    with pytest.raises(UsageError, match="cw serves the budgets l2"):
        st.attack("bisection(attack='cw(steps=2)')", torch.nn.Linear(2, 2), torch.zeros(1, 2), [0], st.Linf(0.1))


@needs_l0
def test_sigma_zero_counts_the_largest_gains():
    """Row n needs its n + 1 largest gains: without the last of them 60 % of it is missing."""
    w = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25]).double()
    y = torch.zeros(4, dtype=torch.int64)
    x = torch.cat([torch.full((4, 6), 0.5), torch.arange(4)[:, None]], 1).double()
    limits = (torch.tensor([0.0] * 7), torch.tensor([1.0] * 6 + [4.0]))
    model = st.Model(Own(w.expand(4, 6), (w.cumsum(0)[:4] - 0.6 * w[:4]) / 2), box=limits)
    budget = st.Masked(BUDGETS.entry("l0").factory(6), torch.tensor([True] * 6 + [False]))
    result = st.attack(SIGMA, model, x, y, budget)
    assert result.won.all()
    assert (result.radius >= torch.arange(1, 5)).all()
    assert (result.radius[:3] == torch.arange(1, 4)).all()
    assert result.radius[3] <= 5
