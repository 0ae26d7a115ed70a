"""cw, ead and sigma-zero end where other libraries' do at the same number of steps, on a small trained network."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.budgets.catalogue import BUDGETS
from tests.rivals import advlib

COUNT = 32


@pytest.fixture(scope="module")
def material() -> tuple[nn.Module, Tensor, Tensor]:
    """A network for the 8×8 digits, and digits that it knows."""
    if find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(labels).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
        optimiser = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    net.eval().requires_grad_(False)
    known = (net(x).argmax(1) == y).nonzero().squeeze(1)[:COUNT]
    return net, x[known], y[known]


def sizes(net: nn.Module, x: Tensor, y: Tensor, points: Tensor, p: float) -> Tensor:
    """The p-norm of every success, ∞ for failures, without any code of theirs or ours."""
    found = (points - x).flatten(1).norm(p, dim=1)
    return torch.where(net(points).argmax(1) != y, found, torch.inf)


def test_cw_beside_adv_lib(material):
    net, x, y = material
    theirs = advlib.attacks().carlini_wagner_l2(
        net, x, y, max_iterations=60, binary_search_steps=4, learning_rate=0.05, initial_const=0.1, abort_early=False
    )
    ours = st.attack("cw(steps=60, searches=4, lr=0.05, c=0.1)", net, x, y, st.L2(100.0)).point
    a, b = sizes(net, x, y, ours, 2), sizes(net, x, y, theirs, 2)
    assert a.isfinite().all()
    assert float(a.median()) == pytest.approx(float(b.median()), rel=0.02)
    assert (a <= 1.1 * b).all()


def test_ead_beside_foolbox(material):
    if find_spec("foolbox") is None:
        pytest.skip("foolbox is not installed")
    import foolbox

    net, x, y = material
    attack = foolbox.attacks.EADAttack(
        binary_search_steps=4, steps=50, initial_stepsize=0.02, initial_const=0.1, abort_early=False,
        decision_rule="L1", regularization=0.01,
    )  # fmt: skip
    theirs = attack(foolbox.PyTorchModel(net, bounds=(0, 1)), x, y, epsilons=None)[1]
    ours = st.attack("ead(steps=50, searches=4, lr=0.02, c=0.1, beta=0.01)", net, x, y, st.L1(1000.0)).point
    a, b = sizes(net, x, y, ours, 1), sizes(net, x, y, theirs, 1)
    assert a.isfinite().all()
    assert float(a.median()) <= 1.02 * float(b.median())
    assert float(a.median()) >= 0.9 * float(b.median())


@pytest.mark.skipif("l0" not in BUDGETS.names(), reason="the budget l0 is not here")
def test_sigma_zero_beside_adv_lib(material):
    net, x, y = material
    theirs = advlib.attacks().sigma_zero(net, x, y, num_steps=150)
    ours = st.attack("sigma-zero(steps=150)", net, x, y, BUDGETS.entry("l0").factory(64)).point
    a, b = sizes(net, x, y, ours, 0), sizes(net, x, y, theirs, 0)
    assert a.isfinite().all()
    assert (a <= b + 1).all()
    assert abs(float(a.mean() - b.mean())) <= 0.1
