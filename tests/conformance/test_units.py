"""Published sizes are for inputs in [0, 1]: the same network in other units loses the same examples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.attacks.contract import AttackResult
from steepest.models.model import Model
from tests.conformance.cases import CALLS, NAMES, Case, case, kind_for, serves
from tests.conformance.table import ROWS
from tests.tables import budgets

UNIT = 255.0
NO_UNITS: dict[str, str] = {}
"""Attacks that cannot be the same in other units, each with the reason."""

EPSILON = 0.06
LONGER = ("ddn", "sigma-zero", "ti-fgsm")
"""Their cheap calls find too little to compare."""


class Rescaled(nn.Module):
    """The network behind x/255."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x / UNIT)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (a, b)
        for a in NAMES
        for b in dict.fromkeys(["linf", "l2", ROWS[a].budget])
        if serves(a, b) and a not in NO_UNITS
    ],
)
def test_in_other_units_the_same_examples_are_lost_to_the_same_shares_of_the_budget(name, kind):
    some = case(kind_for(name, "series K=3"), seed=1, count=24)
    plain, other = found_in(some, name, kind, 1.0), found_in(some, name, kind, UNIT)
    assert torch.equal(plain.won, other.won)
    assert torch.allclose(plain.gauge, other.gauge, rtol=1e-9, atol=1e-12)


def found_in(some: Case, name: str, kind: str, unit: float) -> AttackResult:
    """The attack on the inputs times `unit`, and the budget likewise; counts of values are no lengths."""
    eps = EPSILON * (4 if kind != "linf" else 1)
    budget = budgets(some.shape, eps)[kind]
    if unit != 1:
        budget = replace(budget, reach=eps * unit) if kind == "l0" else budget.scaled(unit)
    network = Rescaled(some.network) if unit != 1 else some.network
    model = Model(network, box=(0, unit))
    call = ROWS[name].solves if name in LONGER else CALLS[name]
    return attack(call, model, unit * some.x, some.y, budget, seed=3)
