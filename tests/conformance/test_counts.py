"""What is counted is what happened: forwards and backwards per example, and who is still in the batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from steepest.attacks.api import attack, pose
from steepest.attacks.contract import Prefer
from steepest.attacks.curve import curve
from steepest.attacks.recipe import Recipe
from steepest.attacks.recipes import ATTACKS
from steepest.budgets.contract import Budget
from steepest.budgets.masked import Masked
from steepest.budgets.weighted import Weighted
from steepest.models.model import Model
from tests.conformance.cases import CALLS, GRADIENT, NAMES, layers
from tests.conformance.table import ROWS
from tests.tables import budgets

COUNT = 8
FROZEN = Weighted(0.25, up=torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]))
"""The first feature never moves: it says which example a row belongs to."""


class Counting(nn.Module):
    """Counts for each example how often it was asked and how often a gradient came back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = torch.zeros(COUNT, dtype=torch.int64)
        self.backwards = torch.zeros(COUNT, dtype=torch.int64)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        names = (x[:, 0].detach() * COUNT).round().long()
        self.forwards += torch.bincount(names, minlength=COUNT)
        self.sizes.append(len(x))
        if x.requires_grad:
            x.register_hook(lambda g: self.came_back(names))
        return self.inner(x[:, 1:])

    def came_back(self, names: Tensor) -> None:
        self.backwards += torch.bincount(names, minlength=COUNT)


def counted(seed: int = 4) -> tuple[Counting, Tensor, Tensor]:
    network = Counting(layers((4,), 3, seed).double())
    x = torch.rand(COUNT, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[:, 0] = torch.arange(COUNT) / COUNT
    with torch.no_grad():
        y = network.inner(x[:, 1:]).argmax(1)
    y[0] = (y[0] + 1) % 3
    return network, x, y


def frozen(name: str) -> Budget:
    """A budget of a kind that the attack serves, under which the first feature never moves."""
    kind = ROWS[name].budget
    return FROZEN if kind == "linf" else Masked(budgets((5,), 0.25)[kind], torch.arange(5) > 0)


def leaves_when_solved(name: str) -> bool:
    """Recipes that end at the first success, under any budget."""
    made = ATTACKS.build(CALLS[name])
    ends = isinstance(made, Recipe) and made.prefer is Prefer.LARGEST_VALUE
    told_apart = not (ROWS[name].images or ROWS[name].several or ROWS[name].views)
    return ends and told_apart and ROWS[name].budget == "linf"


@pytest.mark.parametrize("name", [name for name in NAMES if not ROWS[name].images])
@pytest.mark.parametrize("drop", [True, False])
def test_forwards_and_backwards_are_those_that_hooks_see(name, drop):
    network, x, y = counted()
    result = attack(CALLS[name], network, x, y, frozen(name), drop_solved=drop)
    if ROWS[name].views:
        assert int(result.backwards.sum()) == int(network.backwards.sum())
    else:
        assert torch.equal(result.forwards, network.forwards)
        assert torch.equal(result.backwards, network.backwards)
    assert sum(network.sizes) == int(result.forwards.sum())
    if name not in GRADIENT:
        assert not result.backwards.any()


def test_a_curve_costs_one_backward_and_counts_what_it_asks():
    network, x, y = counted()
    found = curve(network, x, y, FROZEN, factors=torch.arange(1, 33) / 32)
    assert torch.equal(found.forwards, network.forwards)
    assert torch.equal(found.backwards, network.backwards)
    assert (found.backwards == 1).all()
    assert int(found.forwards.max()) <= 1 + 32 + 12
    plain = curve(*counted(), FROZEN, factors=[0.5, 1.0], tolerance=None)
    assert (plain.forwards == 3).all()


class Stubborn(nn.Module):
    """Ten classes whose scores depend on the input a little; the first is far ahead everywhere."""

    def __init__(self) -> None:
        super().__init__()
        slopes = torch.rand(16, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.register_buffer("slopes", 1e-3 * slopes)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.slopes + 10 * nn.functional.one_hot(torch.zeros(len(x)).long(), 10)


@pytest.mark.parametrize(("name", "golden"), [(name, golden) for name in NAMES for golden in ROWS[name].golden])
def test_costs_are_those_of_the_formula(name, golden):
    """C6: a famous name costs what the name says."""
    text, forwards, backwards = golden
    x = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    budget = budgets((1, 4, 4), 0.1)[ROWS[name].budget]
    result = ATTACKS.build(text).run(pose(Stubborn(), x, torch.zeros(3, dtype=torch.int64), budget))
    assert result.forwards.tolist() == [forwards] * 3
    assert result.backwards.tolist() == [backwards] * 3


def test_every_attack_has_its_row():
    assert set(ROWS) == set(ATTACKS.names())
    assert all(row.golden for row in ROWS.values())


@pytest.mark.parametrize("name", [name for name in NAMES if leaves_when_solved(name)])
def test_solved_examples_leave_the_batch(name):
    network, x, y = counted()
    text = CALLS[name]
    result = attack(text, network, x, y, FROZEN)
    sizes = network.sizes
    made = ATTACKS.build(text)
    restarts = made.restarts * max(1, made.targets)
    # An oracle asks about several points of each example at once.
    if made.oracle is None:
        assert sum(a < b for a, b in itertools.pairwise(sizes)) < restarts, "somebody came back"
    assert result.won.any()
    # Whoever is won was asked no more after the question that showed it.
    asked, network.sizes = network.forwards.clone(), []
    everything = attack(text, network, x, y, FROZEN, drop_solved=False)
    assert torch.equal(everything.won, result.won)
    assert (asked[result.won] <= everything.forwards[result.won]).all()
    assert int(asked[result.won].sum()) < int(everything.forwards[result.won].sum())


def test_an_example_wrong_at_x_costs_one_question():
    network, x, y = counted()
    for name in ("fgsm", "bim(steps=9)", "mi-fgsm"):
        assert int(attack(name, Model(network), x, y, FROZEN).forwards[0]) == 1
