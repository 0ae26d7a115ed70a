"""A target is aimed at by every attack that can, whatever the recipe ascends; the others refuse it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import steepest as st
from steepest.basis.errors import DataError, UsageError
from tests.architecture.tree import ROOT
from tests.conformance.cases import CALLS, NAMES, case, kind_for
from tests.conformance.table import ROWS

UNTARGETED = ("md", "deepfool", "fab")


def aimed(name: str, text: str | None = None) -> tuple[st.AttackResult, torch.Tensor]:
    some = case(kind_for(name, "series K=3"), count=12)
    model = st.Model(some.network)
    target = model.logits(some.x).argsort(1, descending=True)[:, 1]
    y = model.logits(some.x).argmax(1)
    budget = some.budget(ROWS[name].budget, 8.0 if ROWS[name].budget == "l0" else 0.5)
    return st.attack(text or CALLS[name], model, some.x, y, budget, objective=st.Targeted("margin", target)), target


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNTARGETED])
def test_a_success_is_the_target_and_nothing_else(name):
    found, target = aimed(name)
    assert torch.equal(found.won, found.outputs.argmax(1) == target)


@pytest.mark.parametrize("text", ["apgd(steps=20, objective='ce')", "apgd(steps=20, targets=9)", "odi(steps=20)",
                                  "fab(steps=20, targets=9)", "autoattack(steps=20, queries=20)"])  # fmt: skip
def test_an_objective_of_the_recipes_own_keeps_the_target(text):
    """Ascending away from y would find few of what plain PGD towards the target finds."""
    name = text.partition("(")[0]
    found, plain = aimed(name, text)[0], aimed("pgd", "pgd(steps=20)")[0]
    assert int(plain.won.sum()) >= 6
    assert int(found.won.sum()) >= int(plain.won.sum()) - 1


@pytest.mark.parametrize("name", UNTARGETED)
def test_what_cannot_aim_says_so(name):
    with pytest.raises(UsageError, match=r"cannot aim.*pgd"):
        aimed(name)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type_serve(dtype):
    some = case("series K=3")
    for text in ("autoattack(steps=2, queries=2)", "fab(steps=2, targets=2)", "deepfool(steps=2)", "pgd(steps=2)"):
        found = st.attack(text, some.network, some.x, some.y.to(dtype), st.Linf(0.1))
        assert torch.equal(found.won, some.attack(text, st.Linf(0.1)).won)
        assert torch.equal(st.attack(text, some.network, some.x, some.y.numpy(), st.Linf(0.1)).won, found.won)


@pytest.mark.parametrize("y", [None, torch.zeros(6), np.zeros(6)])
def test_without_classes_misclassification_is_no_goal(y):
    """argmax never equals such a y: every point would count as won."""
    some = case("series K=3")
    for text in ("pgd(steps=2)", "noise(points=2)", "rays(queries=3)", "cw(steps=2)"):
        budget = some.budget(ROWS[text.partition("(")[0]].budget)
        with pytest.raises(DataError, match="goal="):
            st.attack(text, some.network, some.x, y, budget, objective=lambda z, y: z.sum(1))


WRONG = {
    "pgd(steps='a')": "pgd: steps='a' is not allowed; give a whole number.",
    "pgd(step='a')": "pgd: step='a' is not allowed; give a number or None.",
    "cw(lr='a')": "cw: lr='a' is not allowed; give a number.",
    "mi-fgsm(momentum='a')": "mi-fgsm: momentum='a' is not allowed; give a number.",
    "cw(steps=True)": "cw: steps=True is not allowed; give a whole number.",
    "fab(targets=2.5)": "fab: targets=2.5 is not allowed; give a whole number.",
    "pgd(start=3)": "pgd: start=3 is not allowed; give a text.",
}


def test_arguments_of_another_kind_are_refused_by_name():
    """In a process of its own: under test every call is checked before ours can say anything."""
    code = (
        "import sys\nfrom steepest.attacks.recipes import ATTACKS\nfrom steepest.basis.errors import UsageError\n"
        "for text in sys.argv[1:]:\n  try:\n    ATTACKS.build(text)\n  except UsageError as error:\n    print(error)"
    )
    where = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    asked = subprocess.run([sys.executable, "-c", code, *WRONG], env=where, capture_output=True, text=True, check=True)
    assert asked.stdout.splitlines() == list(WRONG.values())
