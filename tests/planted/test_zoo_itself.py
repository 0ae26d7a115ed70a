"""The zoo proves itself: what is sick looks well to the plain method, and its control and the healthy do not."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from steepest.attacks.api import attack, fgsm
from steepest.attacks.contract import Status
from steepest.basis.errors import ModelError
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from tests.planted.zoo import HONEST, ZOO, Defence, base, digits
from tests.planted.zoo.bases import layers
from tests.planted.zoo.training import fitted, seeded

COUNT = 150
DEFENCES = pytest.mark.parametrize("defence", ZOO.values(), ids=ZOO)


def points(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    x, y = digits().held_out(COUNT)
    return x.to(dtype), y


def predicted(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).argmax(1)


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((predicted(network, x) == y).double().mean())


def after_one_step(network: nn.Module, epsilon: float) -> float:
    """Accuracy after the plain fast gradient sign method on the cross-entropy; where it gives up, on clean inputs."""
    x, y = points()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of gradients that are zero or not finite: they are meant
        try:
            moved = fgsm(Model(network), x, y, Linf(epsilon), objective="ce")
        except ModelError:
            moved = x
    return accuracy(network, moved, y)


def after_many_steps(network: nn.Module, epsilon: float, dtype: torch.dtype = torch.float32) -> float:
    x, y = points(dtype)
    result = attack("pgd(steps=20)", Model(network), x, y, Linf(epsilon), objective="margin")
    return float((~result.won).double().mean())


def lost_by_one_step(network: nn.Module, epsilon: float) -> float:
    return accuracy(network, *points()) - after_one_step(network, epsilon)


def test_the_base_is_right_and_defenceless() -> None:
    assert accuracy(base(), *points()) > 0.95
    for epsilon in {defence.epsilon for defence in ZOO.values()}:
        assert lost_by_one_step(base(), epsilon) > 0.75
        assert after_many_steps(base(), epsilon) < 0.15


def test_training_is_the_same_each_time() -> None:
    first, second = (fitted(seeded(layers, 3), 1, seed=3)(digits().x[:5]) for _ in range(2))
    assert torch.equal(first, second)


@DEFENCES
def test_a_defence_costs_little_clean_accuracy(defence: Defence) -> None:
    x, y = points()
    network = defence.make(base())
    torch.manual_seed(0)  # some defences draw
    assert accuracy(network, x, y) > accuracy(base(), x, y) - 0.08
    if not defence.own_weights:
        assert (predicted(network, x) == predicted(base(), x)).double().mean() > 0.9


@DEFENCES
def test_a_defence_looks_robust_where_it_says_so(defence: Defence) -> None:
    needed = lost_by_one_step(base(), defence.epsilon) / 2
    assert (lost_by_one_step(defence.make(base()), defence.epsilon) < needed) == defence.looks_robust


@DEFENCES
def test_a_control_is_like_the_base(defence: Defence) -> None:
    x, y = points()
    network = defence.control(base())
    assert accuracy(network, x, y) > accuracy(base(), x, y) - 0.03
    assert lost_by_one_step(network, defence.epsilon) > lost_by_one_step(base(), defence.epsilon) / 2
    apart = abs(after_many_steps(network, defence.epsilon) - after_many_steps(base(), defence.epsilon))
    assert apart < (0.3 if defence.own_weights else 0.02)


@DEFENCES
def test_a_gradient_is_as_sick_as_its_record_says(defence: Defence) -> None:
    x, y = points()
    network = Model(defence.make(base()))
    try:
        result = attack("pgd(steps=1)", network, x, y, Linf(1e-6), objective="margin")
    except ModelError:
        assert "gradients" in defence.flagged_by
        return
    assert bool((result.status == Status.NONFINITE).any()) == ("gradients" in defence.flagged_by)
    flat = float((result.status == Status.ZERO_GRADIENT).double().mean())
    assert (flat > 0.3) == ("zero-gradient" in defence.flagged_by)


def test_the_overfitted_network_withstands_its_own_step_only() -> None:
    defence = ZOO["overfitted"]
    network = defence.make(base())
    assert after_one_step(network, defence.epsilon) > 0.6
    assert after_many_steps(network, defence.epsilon) < 0.05


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_is_right(name: str, seed: int) -> None:
    honest = HONEST[name]
    network = honest.make(seed)
    assert network is honest.make(seed)
    assert accuracy(network, *points(honest.dtype)) > 0.9
    assert not any(part.training for part in network.modules())


def test_honest_networks_are_hardened_or_not_as_they_say() -> None:
    hardened = {"pgd-trained", "trades-trained", "noisy-fgsm-trained"}
    for name in hardened:
        assert after_many_steps(HONEST[name].make(0), HONEST[name].epsilon) > 0.65
    assert after_many_steps(HONEST["relu"].make(0), HONEST["relu"].epsilon) < 0.5
    assert after_many_steps(HONEST["all-broken"].make(0), HONEST["all-broken"].epsilon) == 0
