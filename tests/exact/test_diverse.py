"""Margin Decomposition, output-diversified starts, and one search after another."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steepest.attacks.api import attack, pose
from steepest.attacks.ascent import GradientAscent
from steepest.attacks.chain import Chain
from steepest.attacks.diversified import Diversify, RandomDirection
from steepest.attacks.library.md import MarginDecomposition
from steepest.attacks.recipe import Recipe
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from tests.conformance import laws
from tests.conformance.cases import case

X = torch.full((1, 3), 0.5, dtype=torch.float64)
Y = torch.zeros(1, dtype=torch.int64)
SIGNS = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]], dtype=torch.float64)


@pytest.mark.parametrize("run", [0, 1])
def test_the_terms_are_followed_in_the_published_order(run):
    """z_y up; then −z_y (even runs) or the best rival (odd runs); from half of the steps on the margin."""
    wanted = {"own": SIGNS[0], "own falling": -SIGNS[0], "rival": SIGNS[1], "margin": SIGNS[1] - SIGNS[0]}
    search = MarginDecomposition(8)
    posed = replace(pose(Model(lambda x: x @ SIGNS.T), X, Y, Linf(0.1)), restart=run)
    order = ["own", *["rival" if run else "own falling"] * 3, *["margin"] * 4]
    for number, term in enumerate(order):
        ask = search.ask(posed, {}, number)
        z = torch.tensor([[5.0, 2.0, -9.0]], dtype=torch.float64, requires_grad=True)
        assert ask.ascent is not None
        (g,) = torch.autograd.grad(ask.ascent.ascent(z, Y).sum(), z)
        assert torch.equal((g @ SIGNS)[0], wanted[term]), (number, term)


def test_the_step_falls_twice_from_two_budgets_to_none():
    sizes = [MarginDecomposition(50).size(number) for number in range(50)]
    assert sizes[1] == sizes[26] == 2.0
    assert sizes[0] == pytest.approx(1 + math.cos(math.pi / 25))
    assert sizes[1:26] == sorted(sizes[1:26], reverse=True) and sizes[26:] == sorted(sizes[26:], reverse=True)
    assert sizes[25] == pytest.approx(1 + math.cos(math.pi * 24 / 25)) and sizes[25] < 0.01


def test_margin_decomposition_breaks_what_a_hidden_gradient_protects():
    """Near x the rival's pull exactly undoes that of z_y: the margin is flat there, its terms are not."""

    def network(x: Tensor) -> Tensor:
        s = x.sum(1) - 1.5
        bend = (s.abs() - 0.2).clamp_min(0)
        return torch.stack([1 - 5 * s, -5 * s + 9 * bend], 1)

    x = X.expand(6, 3).clone()
    y, ids = Y.expand(6), torch.arange(6)
    blind = attack("bim(steps=50)", Model(network), x, y, Linf(0.1), objective="margin")
    found = attack("md(steps=20)", Model(network), x, y, Linf(0.12), ids=ids, objective="margin")
    assert not blind.won.any() and (blind.status == 2).all()
    assert found.won.all()


def test_directions_are_uniform_in_the_cube_and_belong_to_the_example():
    ids = torch.arange(4000)
    z = torch.eye(3, dtype=torch.float64)
    one = [RandomDirection(Stream.of(1, ids)).ascent(row.expand(4000, 3), None) for row in z]
    for w in one:
        assert float(w.min()) >= -1 and float(w.max()) <= 1
        assert abs(float(w.mean())) < 0.03 and float(w.var()) == pytest.approx(1 / 3, abs=0.02)
    alone = RandomDirection(Stream.of(1, ids)).rows(torch.tensor([17])).ascent(z[1:2], None)
    assert alone.item() == one[1][17].item()


def test_a_diverse_start_is_the_corner_of_its_direction():
    """On a linear model two full steps end at the corner that wᵀz points to, whatever the label."""
    weights = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.full((16, 4), 0.5, dtype=torch.float64)
    y = torch.zeros(16, dtype=torch.int64)
    asked: list[Tensor] = []

    def network(p: Tensor) -> Tensor:
        asked.append(p.detach().clone())
        return p @ weights.T + 100 * torch.nn.functional.one_hot(y, 5)

    attack(Recipe(search=Diversify(2)), Model(network), x, y, Linf(0.1))
    corner = asked[2] - x
    assert torch.allclose(corner.abs(), torch.full_like(corner, 0.1))
    problem = pose(Model(network), x, y, Linf(0.1))
    w = torch.stack(
        [RandomDirection(problem.stream.split(0).split(0x0D1)).ascent(row.expand(16, 5), None) for row in torch.eye(5)],
        1,
    )
    assert torch.equal(corner.sign(), (w.double() @ weights).sign())
    assert len({tuple(row) for row in corner.sign().tolist()}) > 5


def test_a_chain_is_the_second_search_from_where_the_first_ended():
    some = case("image K=10", seed=2, count=8)
    whole = some.attack(Recipe(search=GradientAscent(9, 0.1)), "linf", drop_solved=False)
    parts = some.attack(Recipe(search=Chain(GradientAscent(4, 0.1), GradientAscent(5, 0.1))), "linf", drop_solved=False)
    assert laws.equal(whole, parts)
    for empty in (Chain(Diversify(0), GradientAscent(9, 0.1)), Chain(GradientAscent(9, 0.1), Diversify(0))):
        assert laws.equal(whole, some.attack(Recipe(search=empty), "linf", drop_solved=False))


@pytest.mark.parametrize("text", ["pgd(steps=3, restarts=2, start='odi')", "apgd(steps=3, restarts=2, start='odi')"])
@pytest.mark.parametrize("name", ["linf", "l2", "l1", "one-sided", "masked l1"])
def test_diverse_starts_keep_the_laws(text, name):
    laws.stays_feasible(case("series K=3", torch.float32), text, name)
    laws.says_what_is_true(case("series K=3"), text, name)
    laws.rows_are_independent(case("series K=3", count=3), text, name)
    laws.nothing_moves_without_a_budget(case("series K=3", torch.float32), text, name)


@pytest.mark.parametrize(
    "text", ["md(steps=-1)", "md(restarts=0)", "odi(diversify=-1)", "odi(step=0)", "odi(steps=-1)"]
)
def test_what_is_refused(text):
    with pytest.raises(UsageError):
        attack(text, Model(lambda x: x), X, Y, Linf(0.1))
