"""Small networks in float64, and what every certifier proves and every attack breaks of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.fitting import admits
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import NoCertificateError
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.certify.contract import Prover
from steepest.certify.library import CERTIFIERS
from tests.conformance.table import ROWS

SHAPE = (1, 6, 6)
SIZE = 36
BUDGETS: dict[str, Budget] = {"linf": st.Linf(0.02), "l2": st.L2(0.08), "l1": st.L1(0.3)}
CALLS = {"splitting": "splitting(seconds=0.05, steps=2)"}
"""Certifiers that stop by the clock, with less time: what they prove holds, but depends on the machine."""

REACH = 1.15
"""Budgets are so many times the smallest success of FAB on each example: large enough to break it."""


class Residual(nn.Module):
    """x + f(x) between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        hidden = (hidden + self.inner(hidden)).relu()
        return self.last(hidden.flatten(1))


def _mlp(activation: nn.Module) -> nn.Module:
    hidden = [nn.Linear(SIZE, 12), activation, nn.Linear(12, 10), activation]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(10, 3))


def _steeper(network: nn.Module) -> nn.Module:
    """Twice the weights: with those that layers start with, sigmoids answer one class everywhere."""
    for parameter in network.parameters():
        parameter.data *= 2
    return network


def _normalised() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([0.1, -0.1, 0.0])
    norm.running_var = torch.tensor([0.5, 1.0, 2.0])
    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 3)]
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), norm, nn.ReLU(), *head)


def _pooled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear K=2": lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 2)),
    "linear K=5": lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 5)),
    "MLP ReLU": lambda: _mlp(nn.ReLU()),
    "MLP GELU": lambda: _mlp(nn.GELU()),
    "MLP tanh": lambda: _mlp(nn.Tanh()),
    "MLP sigmoid": lambda: _steeper(_mlp(nn.Sigmoid())),
    "MLP LeakyReLU": lambda: _mlp(nn.LeakyReLU(0.1)),
    "MLP SiLU": lambda: _mlp(nn.SiLU()),
    "CNN average, normalised": _normalised,
    "CNN largest": _pooled,
    "CNN residual": Residual,
}
LONG = {"MLP sigmoid", "MLP LeakyReLU"}
"""Like others; left to the full run."""

PAIRS = [
    pytest.param(network, budget, marks=[pytest.mark.full] if network in LONG else [])
    for network in NETWORKS
    for budget in BUDGETS
]


@cache
def case(network: str) -> tuple[st.Model, Tensor, Tensor]:
    """A model, inputs in [0, 1], and as labels what it says of them."""
    torch.manual_seed(3)
    module = NETWORKS[network]().double().eval()
    x = torch.rand(400, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
        outputs = module(x)
    # The closest of many: there attacks and proofs meet within a few budgets.
    two = outputs.topk(2, 1).values
    near = (two[:, 0] - two[:, 1]).argsort()[[4, 12, 36]]
    return st.Model(module, box=(0, 1)), x[near], outputs[near].argmax(1)


@cache
def allowance(network: str, budget: str) -> Budget:
    """The budget of every example: all attacks find something in it, and none has much room beyond."""
    model, x, y = case(network)
    found = st.attack("fab(steps=10)", model, x, y, BUDGETS[budget].scaled(50.0))
    assert bool(found.won.all())
    return BUDGETS[budget].scaled(50.0 * REACH * found.gauge).fitted(tuple(x.shape))


def region(network: str, budget: str) -> st.Region:
    model, x, _ = case(network)
    return st.Region(allowance(network, budget), model.box, x)


@cache
def prover(certifier: str, network: str) -> Prover | None:
    """What a certifier makes of a network, None where it has no rules for it."""
    try:
        return CERTIFIERS.build(CALLS.get(certifier, certifier)).prepared(case(network)[0], SHAPE)
    except NoCertificateError:
        return None


def serves(certifier: str, network: str, budget: str) -> bool:
    """Whether a certifier says anything of a network under a budget."""
    kinds = CERTIFIERS.build(CALLS.get(certifier, certifier)).budgets
    return (not kinds or budget in kinds) and prover(certifier, network) is not None


def proves(certifier: str, network: str, budget: str, gauge: Tensor) -> Tensor:
    """Whether a certifier proves so many budgets of every example; it must serve the pair."""
    made = prover(certifier, network)
    assert made is not None
    return made.lower(region(network, budget).scaled(gauge), case(network)[2]) > 0


@cache
def certified(certifier: str, network: str, budget: str) -> Tensor:
    """The largest of a few shares of the smallest success of PGD that a certifier proves; 0 where none."""
    best = broken("pgd", network, budget)
    assert best is not None
    found = torch.zeros_like(best)
    for share in (0.02, 0.1, 0.4, 0.8):
        gauge = share * best.clamp(max=1.0)
        found = torch.where(proves(certifier, network, budget, gauge), gauge, found)
    return found


@cache
def broken(attack: str, network: str, budget: str) -> Tensor | None:
    """The gauge of an attack's success on every example, ∞ where it found none; None where it does not serve this."""
    row, (model, x, y) = ROWS[attack], case(network)
    facts = ATTACKS.entry(attack).facts["budgets"]
    if not admits(facts, kind_of(BUDGETS[budget])) and "none" not in facts:
        return None
    allowed = None if facts == "none" else allowance(network, budget)
    if allowed is not None and row.beyond:  # one budget for all examples
        allowed = BUDGETS[budget].scaled(largest(allowed.epsilon) / largest(BUDGETS[budget].epsilon))
    found = st.attack(row.call, model, x, y, allowed)
    wrong = model.logits(found.point).argmax(1) != y
    return torch.where(wrong, region(network, budget).gauge(found.point), torch.inf)
