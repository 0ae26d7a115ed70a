"""What is counted is what happened: forwards and backwards per example, and who is still in the batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.attacks.curve import curve
from steepest.attacks.recipes import ATTACKS
from steepest.budgets.linf import Linf
from steepest.budgets.weighted import Weighted
from steepest.models.model import Model
from tests.conformance.cases import CALLS, GRADIENT, NAMES, call, layers, line

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
        self.forwards[names] += 1
        self.sizes.append(len(x))
        if x.requires_grad:
            x.register_hook(lambda g: self.came_back(names))
        return self.inner(x[:, 1:])

    def came_back(self, names: Tensor) -> None:
        self.backwards[names] += 1


def counted(seed: int = 4) -> tuple[Counting, Tensor, Tensor]:
    network = Counting(layers((4,), 3, seed).double())
    x = torch.rand(COUNT, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[:, 0] = torch.arange(COUNT) / COUNT
    with torch.no_grad():
        y = network.inner(x[:, 1:]).argmax(1)
    y[0] = (y[0] + 1) % 3
    return network, x, y


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("drop", [True, False])
def test_forwards_and_backwards_are_those_that_hooks_see(name, drop):
    network, x, y = counted()
    result = attack(CALLS[name], network, x, y, FROZEN, drop_solved=drop)
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


GOLDEN = {
    # C6: a famous name costs what the name says; (call, forwards, backwards) where nothing is ever solved
    "fgsm": (2, 1),
    "r-fgsm": (2, 1),
    "bim(steps=7)": (8, 7),
    "mi-fgsm(steps=7)": (8, 7),
    "pgd": (21, 20),
    "pgd(steps=5, restarts=3)": (18, 15),
    "noise": (100, 0),
    "noise(points=7)": (7, 0),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_costs_are_those_of_the_formula(text):
    robust = line([1.0, 1.0], reach=10.0)
    made = ATTACKS.build(text)
    result = robust.attack(text, Linf(0.1))
    extra = 0 if made.start.__name__ == "at_x" else 1  # unsolved after a random start: asked at x as well
    forwards, backwards = GOLDEN[text]
    assert result.forwards.tolist() == [forwards + extra] * 3
    assert result.backwards.tolist() == [backwards] * 3


def test_every_catalogued_attack_has_its_cost_checked():
    assert {text.partition("(")[0] for text in GOLDEN} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_solved_examples_leave_the_batch(name):
    network, x, y = counted()
    text = call(name, steps=12, points=20)
    result = attack(text, network, x, y, FROZEN)
    sizes = network.sizes
    restarts = ATTACKS.build(text).restarts
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
