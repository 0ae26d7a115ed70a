"""C12: what an audit finds does not depend on the scale of the logits or on a constant added to them."""

from __future__ import annotations

import pytest
import torch

from steepest.attacks.api import attack
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from tests.conformance.cases import case

RECIPES = [
    "fgsm",
    "pgd(steps=5)",
    "apgd(steps=7)",
    "apgd(steps=5, targets=3)",
    "md(steps=6)",
    "odi(steps=4, restarts=2)",
]


def won(some, recipe: str, objective: str, change) -> torch.Tensor:
    """Who is broken when the logits are changed after the network."""
    model = Model(lambda x: change(some.network(x)))
    return attack(recipe, model, some.x, some.y, Linf(0.03), objective=objective).won


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("objective", ["scaled-ce", "margin", "dlr"])
def test_scale_and_shift_change_no_verdict(recipe, objective):
    some = case("image K=10", seed=2, count=24)
    plain = won(some, recipe, objective, lambda z: z)
    assert 2 < int(plain.sum()) < 22  # some are broken, some are not: there is something to change
    for scale in (1e-3, 1e-1, 10.0, 1e4):
        assert torch.equal(won(some, recipe, objective, lambda z, a=scale: a * z), plain)
    for shift in (-1e3, -1.0, 30.0, 1e3):
        assert torch.equal(won(some, recipe, objective, lambda z, b=shift: z + b), plain)


def test_plain_cross_entropy_in_float32_does_change_its_verdict():
    """The fault that the default objective is there to avoid, and a status that says so."""
    some = case("image K=10", torch.float32, seed=2, count=24)
    model = Model(lambda x: 1e4 * some.network(x))
    blind = attack("fgsm", model, some.x, some.y, Linf(0.03), objective="ce")
    plain = attack("fgsm", Model(some.network), some.x, some.y, Linf(0.03), objective="ce")
    assert int(blind.won.sum()) < int(plain.won.sum())
    assert (blind.status == 2).any()
    for name in ("scaled-ce", "margin"):
        found = attack("fgsm", model, some.x, some.y, Linf(0.03), objective=name)
        assert torch.equal(found.won, attack("fgsm", some.network, some.x, some.y, Linf(0.03), objective=name).won)
