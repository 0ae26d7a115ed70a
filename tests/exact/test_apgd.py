"""Auto-PGD: its schedule, its path against a second implementation by hand, its ends on linear and quadratic models."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from steepest.attacks.api import attack, pose
from steepest.attacks.library.apgd import AutoPGD, checkpoints, phases
from steepest.attacks.recipe import Recipe
from steepest.attacks.worst_case import worst_case
from steepest.basis.errors import UsageError
from steepest.budgets.l1 import L1
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.region import Region
from steepest.models.model import Model
from steepest.models.objectives import DLR, DLROrMargin, Margin, Targeted, output_itself
from tests.conformance.cases import case
from tests.exact.test_affine import BOXES, affine, gain
from tests.tables import CLOSED, budgets

X = torch.zeros(1, 2, dtype=torch.float64)
Y = torch.zeros(1, dtype=torch.int64)


def test_the_checkpoints_of_a_hundred_steps_are_the_published_ones():
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]


@pytest.mark.parametrize(
    ("steps", "ends"),
    [(20, [4, 7, 10, 13, 16, 19]), (30, [6, 11, 15, 18, 21, 24, 27, 30]), (2, []), (0, [])],
)
def test_short_runs_keep_windows_of_three_steps(steps, ends):
    assert list(checkpoints(steps)) == ends


@pytest.mark.parametrize("steps", [50, 200, 1000])
def test_long_runs_need_no_floor(steps):
    windows = [int(0.22 * steps)]
    while sum(windows) <= steps:
        windows.append(max(windows[-1] - max(int(0.03 * steps), 1), int(0.06 * steps)))
    assert list(checkpoints(steps)) == list(accumulate(windows))[:-1]


def rough(x: Tensor) -> Tensor:
    """A landscape with many tops, on which steps overshoot, rise and fall."""
    return torch.sin(9 * x[:, 0]) + torch.cos(7 * x[:, 1]) + 2 * x[:, 0] * x[:, 1] - x.square().sum(1)


def by_hand(start: list[float], steps: int, *, remember: bool = True) -> list[list[float]]:
    """Croce & Hein's algorithm 1 in plain numbers on `rough`, ε = 1, no box: every point that is asked."""

    def value(p):
        return math.sin(9 * p[0]) + math.cos(7 * p[1]) + 2 * p[0] * p[1] - p[0] ** 2 - p[1] ** 2

    def slope(p):
        return [9 * math.cos(9 * p[0]) + 2 * p[1] - 2 * p[0], -7 * math.sin(7 * p[1]) + 2 * p[0] - 2 * p[1]]

    def clip(p):
        return [max(-1.0, min(1.0, c)) for c in p]

    ends = list(checkpoints(steps))
    point = before = best = start
    visited, values, bests, size, halved, last_end = [start], [value(start)], [value(start)], 2.0, False, 0
    for k in range(steps):
        if k in ends:
            rises = sum(values[i + 1] > values[i] for i in range(last_end, k))
            halve = rises <= 0.75 * (k - last_end) or (not halved and bests[k] == bests[last_end])
            if halve:
                size, point = size / 2, best
            halved, last_end = halve, k
        g = slope(point)
        z = clip([c + size * math.copysign(1, s) for c, s in zip(point, g, strict=True)])
        if k and remember:
            z = clip([c + 0.75 * (t - c) + 0.25 * (c - b) for c, t, b in zip(point, z, before, strict=True)])
        before, point = point, z
        visited.append(point)
        values.append(value(point))
        if values[-1] > bests[-1]:
            best = point
        bests.append(max(bests[-1], values[-1]))
    return visited


def walked(start: list[float], steps: int) -> Tensor:
    """Every point that our search asks about on `rough`."""
    asked = []

    def network(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        return rough(x)[:, None]

    first = torch.tensor([start], dtype=torch.float64)
    problem = pose(Model(network, None), X, Y, Linf(1.0), objective=output_itself(), drop_solved=False)
    found = Recipe(search=AutoPGD(steps), start=lambda problem, _: first).run(problem)
    assert found.value.item() == pytest.approx(max(rough(p).item() for p in asked), abs=1e-15)
    assert (found.forwards.item(), found.backwards.item()) == (steps + 1, steps)
    return torch.cat(asked)


@pytest.mark.parametrize("start", [[0.1, 0.2], [-0.3, 0.9], [0.77, -0.21]])
@pytest.mark.parametrize("steps", [1, 20, 60, 100])
def test_the_path_is_that_of_the_algorithm_by_hand(start, steps):
    found = walked(start, steps)
    assert torch.allclose(found, torch.tensor(by_hand(start, steps), dtype=torch.float64), atol=1e-9)
    if steps > 1:
        other = torch.tensor(by_hand(start, steps, remember=False), dtype=torch.float64)
        assert not torch.allclose(found, other, atol=1e-2)


@pytest.mark.parametrize("theta", [0.1, 0.5, -0.9, 1.5, 2.0, 3.0])
def test_the_top_of_a_bowl_is_reached_without_a_step_size(theta):
    """L = θδ − δ², ε = 1: the top θ/2 is reached far closer than by PGD, whose steps do not fall."""

    def bowl(x):
        return (theta * x - x.square()).sum(1)

    top = max(-1.0, min(1.0, theta / 2))
    best = 2 * (theta * top - top**2)
    found = worst_case(bowl, X, Linf(1.0), recipe="apgd(steps=200)")
    assert found.value.item() == pytest.approx(best, abs=1e-5)
    assert found.point[0].tolist() == pytest.approx([top, top], abs=5e-3)
    assert worst_case(bowl, X, Linf(1.0), recipe="pgd(steps=100)").value.item() <= found.value.item()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", [name for name in CLOSED if "l1" not in name and "sum" not in name])
@pytest.mark.parametrize("size", [6, 60])
def test_on_an_affine_model_the_gain_is_the_support(name, box, size):
    """From a random start, in a sphere cut by the box and in one-sided intervals too."""
    network, x, w = affine(size, 3, (size,))
    model, budget = Model(network, BOXES[box]), budgets((size,), 0.5)[name]
    found = attack("apgd(steps=40)", model, x, Y.expand(3), budget, objective="margin", drop_solved=False)
    best = Region(budget, model.box, x).support(w.expand_as(x))
    assert torch.allclose(gain(network, x, found.point), best, rtol=1e-7, atol=1e-9)


def test_in_the_sparse_set_the_early_phases_search_farther_and_return_nothing_from_there():
    """3, 2, 1 times ε for 30, 30, 40 %: asked about outside, returned from inside."""
    assert phases(100) == (30, 60)
    sizes: list[float] = []

    def network(x: Tensor) -> Tensor:
        sizes.append(float(x.detach().abs().sum()))
        return torch.stack([1 - 0.1 * x.sum(1), 0.1 * x.sum(1)], 1)

    x = torch.zeros(1, 40, dtype=torch.float64)
    problem = pose(Model(network, (0, 1)), x, Y, L1(1.0))
    found = AutoPGD(100)
    result = Recipe(search=found, restarts=1).run(problem)
    assert max(sizes[:30]) == pytest.approx(3.0) and max(sizes[30:60]) == pytest.approx(2.0)
    assert max(sizes[60:]) == pytest.approx(1.0)
    assert not result.won.any() and float(result.gauge) <= 1
    assert result.value.item() == pytest.approx(-0.8)  # −1 + 0.2·Σδ at Σδ = 1


@pytest.mark.parametrize("masked", [False, True])
def test_in_the_sparse_set_a_linear_gain_comes_close_to_the_support(masked):
    size = 200
    network, x, w = affine(size, 3, (size,))
    mask = torch.arange(size) % 2 == 0
    budget = Masked(L1(0.5), mask) if masked else L1(0.5)
    model = Model(network, (0, 1))
    found = attack("apgd", model, x, Y.expand(3), budget, objective="margin", drop_solved=False)
    best = Region(budget, model.box, x).support(w.expand_as(x))
    share = gain(network, x, found.point) / best
    assert (share > 0.9).all() and (share <= 1 + 1e-9).all()
    if masked:
        assert torch.equal(found.point[:, ~mask], x[:, ~mask])


def test_more_targets_keep_what_fewer_have_broken():
    some = case("image K=10", seed=2, count=24)
    solved = torch.zeros(24, dtype=torch.bool)
    for targets in (1, 3, 9):
        result = some.attack(f"apgd(steps=8, targets={targets})", some.budget("linf", 0.03))
        assert result.won[solved].all()
        solved = result.won
    assert int(solved.sum()) > 2 and result.notes == ()


@pytest.mark.parametrize(
    ("call", "kind", "note"),
    [
        ("apgd(steps=3, targets=9)", "vector K=2", "targeted dlr, which needs 4 classes; the model has 2"),
        ("apgd(steps=3, targets=9)", "series K=3", "targeted dlr, which needs 4 classes; the model has 3"),
        ("apgd(steps=3, objective='dlr')", "vector K=2", "dlr, which needs 3 classes; the model has 2"),
        ("apgd(steps=3, objective='dlr')", "series K=3", ""),
        ("apgd(steps=3, targets=9)", "image K=10", ""),
        ("apgd(steps=3)", "vector K=2", ""),
    ],
)
def test_where_the_margin_takes_the_place_of_the_dlr_the_result_says_so(call, kind, note):
    notes = case(kind).attack(call, "linf").notes
    assert [text.removeprefix("the margin took the place of the ") for text in notes] == ([note] if note else [])


def test_the_dlr_with_a_way_out_is_the_dlr_or_the_margin():
    z = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.5, 2.0, 1.0, 0.0]], dtype=torch.float64)
    y, safe = torch.tensor([0, 2]), DLROrMargin()
    assert torch.equal(safe.value(z, y), DLR().value(z, y))
    assert torch.equal(safe.value(z[:, :2], y.clamp_max(1)), Margin().value(z[:, :2], y.clamp_max(1)))
    assert torch.equal(Targeted(safe, 1).value(z, y), Targeted("dlr", 1).value(z, y))
    assert torch.equal(Targeted(safe, 1).value(z[:, :3], y), Targeted("margin", 1).value(z[:, :3], y))


@pytest.mark.parametrize("text", ["apgd(steps=-1)", "apgd(start='odd')", "apgd(objective='loss')", "apgd(targets=-1)"])
def test_what_auto_pgd_refuses(text):
    with pytest.raises(UsageError):
        attack(text, Model(lambda x: x), X, Y, Linf(0.1))
