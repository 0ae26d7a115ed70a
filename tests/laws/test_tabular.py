"""Tables: brute force over every combination of features, the grid exactly, and every attack on mixed columns."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steepest.attacks.api import attack, fgsm
from steepest.attacks.contract import Status
from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.catalogue import parse_budget
from steepest.budgets.masked import Masked
from steepest.budgets.region import Region
from steepest.budgets.tabular import Tabular
from steepest.models.model import Model

# Columns: 0 a number, 1 a whole number, 2 grows in steps of 0.5, 3 frozen, 4–6 and 7–8 one-hot.
COLUMNS, GROUPS = 9, [[4, 5, 6], [7, 8]]
UP = [1.0, 2.0, 1.4, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0]
DOWN = [0.5, 2.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0]
STEP = [0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
LOWER = torch.tensor([-1.0, 0.0, 0.0, -5.0, 0, 0, 0, 0, 0])
UPPER = torch.tensor([1.0, 9.0, 4.0, 5.0, 1, 1, 1, 1, 1])
BOX = Box(LOWER, UPPER)
NUMBERS = [[0], [1], [2]]
COUNTS = [(0, None), (1, None), (2, None), (1, 1), (2, 2), (2, 3), (1, 3), (2, 0)]


def table(changes: int = 1, features: int | None = None, epsilon: float = 1.0) -> Tabular:
    return Tabular(epsilon, up=UP, down=DOWN, step=STEP, groups=GROUPS, changes=changes, features=features)


def rows(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Rows on the grid, whole numbers at both walls of the box among them."""
    random = torch.Generator().manual_seed(seed)
    number = torch.rand(count, 1, dtype=torch.float64, generator=random) * 2 - 1
    whole = torch.randint(0, 10, (count, 1), generator=random).double()
    half = torch.randint(0, 9, (count, 1), generator=random).double() / 2
    first = nn.functional.one_hot(torch.randint(0, 3, (count,), generator=random), 3)
    second = nn.functional.one_hot(torch.randint(0, 2, (count,), generator=random), 2)
    return torch.cat([number, whole, half, torch.zeros(count, 1), first, second], 1).to(dtype)


def options(x: torch.Tensor, v: torch.Tensor, nearest: bool) -> list[list[list[tuple[int, float]]]]:
    """For each feature of one row every change worth a thought, as (column, δ) pairs; written without code of ours."""
    low = [max(-DOWN[i], float(LOWER[i] - x[i])) for i in range(4)]
    high = [min(UP[i], float(UPPER[i] - x[i])) for i in range(4)]
    number = [min(max(float(v[0]), low[0]), high[0])] if nearest else [low[0], high[0]]
    found = [[[(0, d)] for d in number if d] + [[]]]
    for i in (1, 2):
        size = 10 if i == 1 else 8
        steps = [k * STEP[i] for k in range(-size, size + 1)]
        found.append([[(i, d)] if d else [] for d in steps if low[i] <= d <= high[i]])
    for group in GROUPS:
        clean = next(i for i in group if x[i] == 1)
        found.append([[] if b == clean else [(b, 1.0), (clean, -1.0)] for b in group])
    return found


def allowed(x: torch.Tensor, v: torch.Tensor, changes: int, features: int | None, nearest: bool) -> torch.Tensor:
    """Every allowed δ of one row that could be the best for v, [M, 9]."""
    found = []
    for chosen in itertools.product(*options(x, v, nearest)):
        switched, moved = sum(bool(c) for c in chosen[3:]), sum(bool(c) for c in chosen)
        if switched <= changes and (features is None or moved <= features):
            delta = torch.zeros(COLUMNS, dtype=torch.float64)
            for column, d in itertools.chain(*chosen):
                delta[column] = d
            found.append(delta)
    return torch.stack(found)


@pytest.mark.parametrize(("changes", "features"), COUNTS)
def test_extreme_and_projection_are_those_of_brute_force(changes, features):
    x = rows(12, seed=changes)
    region = Region(table(changes, features), BOX, x)
    for seed in range(4):
        v = torch.randn(12, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1.5
        v[:, 0] *= 0.3
        best, near = region.extreme(v) - x, region.project(x + v) - x
        for row in range(12):
            every = allowed(x[row], v[row], changes, features, nearest=False)
            assert float(v[row] @ best[row]) == pytest.approx(float((every @ v[row]).max()), abs=1e-12)
            assert float(region.support(v)[row]) == pytest.approx(float((every @ v[row]).max()), abs=1e-12)
            every = allowed(x[row], v[row], changes, features, nearest=True)
            closest = (every - v[row]).norm(dim=1).min()
            assert float((near[row] - v[row]).norm()) == pytest.approx(float(closest), abs=1e-12)


def proper(x: torch.Tensor, point: torch.Tensor, changes: int, features: int | None) -> bool:
    """Whether every row of `point` is allowed, judged column by column, without tolerance on what is whole."""
    p, delta = point.double(), point.double() - x.double()
    fine = bool(((p >= LOWER) & (p <= UPPER)).all()) and bool((p[:, 1] == p[:, 1].round()).all())
    fine &= bool((2 * p[:, 2] == (2 * p[:, 2]).round()).all()) and bool((delta[:, 2] >= 0).all())
    fine &= bool((delta[:, 3] == 0).all())
    for i in range(4):
        fine &= bool(((delta[:, i] <= UP[i]) & (delta[:, i] >= -DOWN[i])).all())
    switched = []
    for group in GROUPS:
        fine &= bool(((p[:, group] == 0) | (p[:, group] == 1)).all()) and bool((p[:, group].sum(1) == 1).all())
        switched.append((delta[:, group] != 0).any(1))
    count = torch.stack(switched).sum(0)
    total = count + (delta[:, :3] != 0).sum(1)
    return fine and bool((count <= changes).all()) and (features is None or bool((total <= features).all()))


@given(
    counts=st.sampled_from(COUNTS),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 10_000),
    size=st.sampled_from([0.02, 0.3, 1.0]),
)
def test_every_point_is_on_the_grid_in_every_precision(counts, dtype, seed, size):
    x = rows(9, seed, dtype)
    region, stream = Region(table(*counts), BOX, x), Stream.of(seed, torch.arange(9))
    g = torch.randn(9, COLUMNS, generator=torch.Generator().manual_seed(seed)).to(dtype)
    points = [
        region.extreme(g),
        region.project(x + g),
        region.sample(stream, 0),
        region.sample_clipped(stream, 1),
        region.corner(stream, 2),
        region.ascend(region.sample(stream, 3), g, size),
    ]
    points += list(region.swaps(region.sample(stream, 4), g, torch.zeros(9, dtype=torch.int64), 12).unbind(1))
    for point in points:
        assert point.dtype == dtype
        assert proper(x, point, *counts)
        assert region.contains(point).all()
        assert torch.equal(region.project(point), point)
        assert float((region.support(g) - ((point.double() - x.double()) * g.double()).sum(1)).min()) >= -1e-9


def test_what_the_gauge_refuses():
    delta = torch.zeros(9, COLUMNS, dtype=torch.float64)
    delta[0, 1] = 0.5  # half a step
    delta[1, 4] = 1.0  # two categories
    delta[2, 4], delta[2, 5] = -0.5, 0.5  # half a switch
    delta[3, 3] = 1e-12  # frozen
    delta[4, 2] = -0.5  # against the sense of growth
    delta[5, [4, 5, 7, 8]] = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)  # two switches
    delta[6, 1] = 3.0
    delta[7, 0] = math.nan
    delta[8, [0, 1, 2, 4, 5]] = torch.tensor([1.0, -2.0, 1.0, 1.0, -1.0], dtype=torch.float64)  # all that is allowed
    gauge = table().fitted((9, COLUMNS)).gauge(delta)
    assert gauge[:5].isinf().all()
    assert gauge[5:7].tolist() == [2.0, 1.5]
    assert not gauge[7] <= 1
    assert gauge[8] == 1
    assert table(2).fitted((9, COLUMNS)).gauge(delta)[5] == 1
    assert table(2, 3).fitted((9, COLUMNS)).gauge(delta)[8] > 1


def test_scaled_sets_are_nested_and_zero_freezes_everything():
    x = rows(40)
    stream = Stream.of(0, torch.arange(40))
    whole = Region(table(2, 4), BOX, x)
    for small, large in [(0.0, 0.1), (0.3, 0.5), (0.5, 1.0), (1.0, 1.5)]:
        inner, outer = whole.scaled(small), whole.scaled(large)
        for step in range(5):
            assert outer.contains(inner.sample(stream, step)).all()
            assert (whole.gauge(inner.sample(stream, step)) <= small + 1e-9).all()
    g = torch.randn_like(x)
    assert torch.equal(whole.scaled(0.0).extreme(g), x)
    each = torch.where(torch.arange(40) % 2 == 0, 0.0, 1.0)
    mixed = whole.scaled(each).extreme(g)
    assert torch.equal(mixed[::2], x[::2]) and torch.equal(mixed[1::2], whole.extreme(g)[1::2])
    third = Tabular(0.3, step=0.1).fitted((1, 1))  # 0.3 / 0.1 is just below 3
    assert third.extreme(torch.ones(1, 1, dtype=torch.float64)).item() == pytest.approx(0.3)


@pytest.mark.parametrize("scale", [1 / 255, 0.1, 0.37])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_step_that_no_float_holds_is_kept_to_one_unit_in_the_last_place(scale, dtype):
    count = torch.arange(200, dtype=torch.float64)
    x = ((count * scale) - 3).to(dtype)[:, None]
    region = Region(Tabular(3 * scale, step=scale), Box(-3, 3.0 + 200 * scale), x)
    for sign in (1.0, -1.0):
        point = region.extreme(torch.full_like(x, sign))
        assert region.contains(point).all()
        wanted = (x.double() + sign * 3 * scale).clamp(min=-3)
        unit = torch.finfo(dtype).eps * torch.maximum(point.double().abs(), x.double().abs())
        # The first are near the wall, from which x may be less than three of its steps away once rounded.
        ideal = ((point.double() - wanted).abs() <= unit + 1e-12)[8:]
        assert ideal.all()
        assert not region.contains(point + 0.4 * scale * sign).any() or dtype in (torch.float16, torch.bfloat16)


def test_rows_are_independent():
    x, stream = rows(7), Stream.of(5, torch.arange(7))
    region = Region(table(2, 3), BOX, x).scaled(torch.linspace(0, 1, 7))
    g = torch.randn_like(x)
    zero = torch.zeros(7, dtype=torch.int64)
    for row in range(7):
        index = torch.tensor([row])
        alone, here = region.rows(index), region.sample(stream, 1)
        assert torch.equal(alone.extreme(g[index])[0], region.extreme(g)[row])
        assert torch.equal(alone.project(x[index] + g[index])[0], region.project(x + g)[row])
        assert torch.equal(alone.sample(stream.rows(index), 1)[0], here[row])
        assert torch.equal(alone.ascend(here[index], g[index], 0.1)[0], region.ascend(here, g, 0.1)[row])
        assert torch.equal(alone.swaps(here[index], g[index], zero[index], 4)[0], region.swaps(here, g, zero, 4)[row])
    empty = Region(table(), BOX, x[:0])
    assert empty.extreme(g[:0]).shape == (0, COLUMNS)
    assert empty.gauge(x[:0]).shape == (0,)


def test_the_law_of_samples():
    """Numbers uniform, counts of switches uniform, categories uniform."""
    x = rows(1).expand(20_000, -1).clone()
    x[:, 1] = 5
    x[:, 4:] = torch.tensor([0.0, 1, 0, 1, 0])
    points = Region(table(2), BOX, x).sample(Stream.of(0, torch.arange(len(x))), 0)
    for value in (3.0, 4.0, 5.0, 6.0, 7.0):
        assert float((points[:, 1] == value).double().mean()) == pytest.approx(0.2, abs=0.01)
    first, second = points[:, 5] == 0, points[:, 7] == 0
    for count in range(3):
        assert float((first.int() + second.int() == count).double().mean()) == pytest.approx(1 / 3, abs=0.01)
    assert float((points[:, 4] == 1).double().mean()) == pytest.approx(0.25, abs=0.01)


# Attacks ----------------------------------------------------------------------------------------------------------

CALLS = ["fgsm", "r-fgsm", "bim", "pgd", "pgd(steps=40, step=0.02)", "mi-fgsm", "noise(points=400)", "greedy-swap"]


def linear(weights: torch.Tensor, x: torch.Tensor, share: float, gain: torch.Tensor) -> nn.Module:
    """Two classes; class 1 wins where ⟨w, p⟩ exceeds ⟨w, x⟩ by more than `share` of what the budget can gain."""

    class Line(nn.Module):
        def forward(self, point: torch.Tensor) -> torch.Tensor:
            score = point @ weights.to(point.dtype) - (x @ weights + share * gain).to(point.dtype)
            return torch.stack([-score, score], 1) / 2

    return Line()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", ["all", "one category", "one step"])
def test_every_attack_succeeds_where_only_whole_changes_do(call, what):
    """Small steps that are rounded to the nearest allowed point would never leave x."""
    budget = {
        "all": table(2),
        "one category": Tabular(1.0, up=0.0, groups=GROUPS),
        "one step": Tabular(1.0, up=[0, 1, 0, 0, 0, 0, 0, 0, 0], step=1.0),
    }[what]
    weights = torch.tensor([1.0, -0.7, 0.9, 3.0, 0.2, 1.1, -0.4, 0.5, -0.8], dtype=torch.float64)
    x = rows(1, seed=3)
    x[:, 1], x[:, 4:] = 4, torch.tensor([0.0, 0, 1, 0, 1])
    gain = Region(budget, BOX, x).support(weights[None])
    result = attack(call, Model(linear(weights, x, 0.6, gain), BOX), x, torch.zeros(1, dtype=torch.int64), budget)
    assert result.won.all(), f"{call} finds nothing"
    assert proper(x, result.point, 2, None)
    assert (result.gauge <= 1).all()


@pytest.mark.parametrize("call", ["fgsm", "bim(steps=20)", "mi-fgsm", "greedy-swap", "pgd(steps=40)"])
@pytest.mark.parametrize(("changes", "features"), COUNTS)
def test_exact_on_a_linear_model_against_brute_force(call, changes, features):
    budget, x = table(changes, features), rows(8, seed=11)
    weights = torch.randn(COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(changes))
    network = linear(weights, x[:1], 5.0, torch.tensor([50.0], dtype=torch.float64))
    y = torch.zeros(8, dtype=torch.int64)
    result = attack(call, Model(network, BOX), x, y, budget, drop_solved=False)
    for row in range(8):
        every = allowed(x[row], weights, changes, features, nearest=False)
        best = float((every @ weights).max())
        assert float((result.point[row] - x[row]) @ weights) == pytest.approx(best, abs=1e-9)
    assert (result.status == Status.EXHAUSTED).all()


def test_greedy_swaps_solve_what_one_gradient_misjudges():
    """At x the gradient recommends the wrong category; the model itself, asked, says so."""

    class Trap(nn.Module):
        def forward(self, p: torch.Tensor) -> torch.Tensor:
            score = 3 * p[:, 5] - 9 * p[:, 5] ** 2 + 2 * p[:, 6] - 1
            return torch.stack([-score, score], 1)

    budget = Tabular(1.0, up=0.0, groups=GROUPS)
    x = rows(1)
    x[:, 4:7] = torch.tensor([1.0, 0, 0])
    y = torch.zeros(1, dtype=torch.int64)
    model = Model(Trap(), BOX)
    assert fgsm(model, x, y, budget)[0, 5] == 1
    assert not attack("fgsm", model, x, y, budget).won.any()
    assert attack("greedy-swap(rounds=1)", model, x, y, budget).won.all()


@pytest.mark.parametrize("features", [None, 2])
def test_greedy_swaps_reach_the_best_pair_of_interacting_features(features):
    """Against all combinations, on random models with pairwise terms: never better, and nearly always as good."""
    x, budget = rows(30, seed=2), table(2, features)
    y, reached, best = torch.zeros(30, dtype=torch.int64), [], []
    random = torch.Generator().manual_seed(0)
    pairs = torch.randn(COLUMNS, COLUMNS, dtype=torch.float64, generator=random) * 0.3
    weights = torch.randn(COLUMNS, dtype=torch.float64, generator=random)

    class Pairs(nn.Module):
        def forward(self, p: torch.Tensor) -> torch.Tensor:
            score = p @ weights + ((p @ pairs) * p).sum(1) - 1e3
            return torch.stack([-score, score], 1) / 2

    result = attack("greedy-swap", Model(Pairs(), BOX), x, y, budget, drop_solved=False)
    plain = attack("fgsm", Model(Pairs(), BOX), x, y, budget, drop_solved=False)
    assert (result.value >= plain.value).all()
    for row in range(30):
        # The number's best value may lie inside: a fine grid of it is a lower bound on the best.
        every = torch.cat(
            [
                allowed(x[row], v, 2, features, nearest=True)
                for v in torch.eye(1, COLUMNS) * torch.linspace(-0.5, 1, 31)[:, None]
            ]
        )
        every = every[((x[row] + every)[:, 0] <= 1) & ((x[row] + every)[:, 0] >= -1)]
        z = Pairs()(x[row] + every)
        best.append(float((z[:, 1] - z[:, 0]).max()))
        reached.append(float(result.value[row]))
    close = sum(r >= b - 0.02 for r, b in zip(reached, best, strict=True))
    assert close >= 24, f"only {close} of 30"


def test_swaps_of_a_budget_that_knows_no_features_are_coordinates():
    from steepest.budgets.l2 import L2

    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    region = Region(L2(0.3), Box(0, 1), x)
    near = region.swaps(x, torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([0]), 2)
    assert torch.allclose(near[0], torch.tensor([[0.5, 0.2, 0.5], [0.8, 0.5, 0.5]], dtype=torch.float64))


def test_masks_freeze_columns_of_tables():
    mask = torch.ones(COLUMNS, dtype=torch.bool)
    mask[[1, 4]] = False
    x = rows(6)
    region = Region(Masked(table(2), mask), BOX, x)
    point = region.extreme(torch.randn_like(x))
    assert torch.equal(point[:, [1, 4]], x[:, [1, 4]])
    assert proper(x, point, 2, None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tabular(-1.0), "-1"),
        (lambda: Tabular(1.0, up=[-2.0]), "-2"),
        (lambda: Tabular(1.0, step=[math.inf]), "inf"),
        (lambda: Tabular(1.0, groups=[[1]]), r"\[\[1\]\]"),
        (lambda: Tabular(1.0, groups=[[1, 2], [2, 3]]), r"\[2\]"),
        (lambda: Tabular(1.0, groups=[[1, 2]], changes=-1), "changes=-1"),
        (lambda: Tabular(1.0, groups=[[1, 9]]).fitted((2, 4)), "column 9"),
        (lambda: Tabular(1.0, up=[1.0, 2.0]).fitted((2, 4)), r"\(2,\)"),
        (lambda: Region(table(), Box.of(None), rows(2)).extreme(rows(2)), "box per feature"),
        (lambda: parse_budget("tabular:0.1"), "st.Tabular"),
    ],
)
def test_tables_that_cannot_be_are_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()
