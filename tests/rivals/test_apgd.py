"""Auto-PGD leaves as few examples standing as adv-lib's, at the same steps, and no more than PGD does.

adv-lib's version keeps a reference where the published code keeps a copy of the best losses: from the second
checkpoint on it halves wherever it did not halve at the one before, whether or not the best loss rose.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from tests.rivals.advlib import attacks

BUDGETS = {"linf": (math.inf, st.Linf, 0.1), "l2": (2, st.L2, 0.8), "l1": (1, st.L1, 3.0)}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained for a second on scanned digits, and the digits that it has not seen."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(loaded.data / 16, dtype=torch.float32), torch.tensor(loaded.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(20):
            for first in range(0, 1200, 60):
                rows = slice(first, first + 60)
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimiser.step()
    return net.eval().requires_grad_(requires_grad=False), x[1200:], y[1200:]


def left(digits: tuple[nn.Module, Tensor, Tensor], call: str, name: str, seed: int = 0, **options: str) -> float:
    net, x, y = digits
    _, budget, eps = BUDGETS[name]
    return 1 - float(st.attack(call, net, x, y, budget(eps), seed=seed, **options).won.double().mean())


def theirs(digits: tuple[nn.Module, Tensor, Tensor], name: str, loss: str, steps: int, seed: int) -> float:
    net, x, y = digits
    norm, _, eps = BUDGETS[name]
    torch.manual_seed(seed)
    point = attacks().apgd(net, x, y, eps, norm, n_iter=steps, loss_function=loss, use_large_reps=name == "l1")
    return float((net(point).argmax(1) == y).double().mean())


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("name", BUDGETS)
def test_it_is_as_strong_as_the_rival_at_the_same_steps(digits, name, loss):
    """Mean of three starts; half a point is three of the 597 examples."""
    rival = sum(theirs(digits, name, loss, 20, seed) for seed in SEEDS) / len(SEEDS)
    ours = sum(left(digits, f"apgd(steps=20, objective={loss!r})", name, seed) for seed in SEEDS) / len(SEEDS)
    assert 0 < ours < 0.6
    assert ours <= rival + 0.005


@pytest.mark.parametrize("name", BUDGETS)
def test_it_is_at_least_as_strong_as_pgd_at_the_same_steps(digits, name):
    assert left(digits, "apgd(steps=20, objective='ce')", name) <= left(digits, "pgd", name, objective="ce") + 0.002


@pytest.mark.parametrize("name", BUDGETS)
def test_targets_break_more_than_one_run(digits, name):
    assert left(digits, "apgd(steps=10, targets=9)", name) <= left(digits, "apgd(steps=10, objective='dlr')", name)
