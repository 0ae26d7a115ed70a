"""Sick models and impossible questions: a fact about an example is a status, a broken model is an error."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from steepest.attacks.api import attack, fgsm
from steepest.attacks.contract import Status
from steepest.attacks.curve import curve
from steepest.attacks.worst_case import worst_case
from steepest.basis.errors import DataError, ModelError
from steepest.budgets.contract import Budget
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from tests.conformance import laws
from tests.conformance.cases import CALLS, GRADIENT, NAMES, Case, case, kind_for, starts_at_x
from tests.conformance.table import ROWS
from tests.tables import budgets

PLAIN = [name for name in NAMES if not ROWS[name].images]
SEVERAL = pytest.mark.parametrize("name", PLAIN)
X = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
Y = torch.zeros(4, dtype=torch.int64)


def of(name: str, eps: float = 0.1) -> Budget:
    """A budget of the kind that the attack's row names."""
    return budgets((4,), eps)[ROWS[name].budget]


def two(z: torch.Tensor) -> torch.Tensor:
    return torch.stack([z, -z], 1)


def constant(x: torch.Tensor) -> torch.Tensor:
    return two(1 + 0 * x.flatten(1).sum(1))


@SEVERAL
def test_nan_outputs_are_said_and_never_won(name):
    result = attack(CALLS[name], lambda x: two(x.sum(1) * math.nan), X, Y, of(name))
    assert (result.status == Status.NONFINITE).all()
    assert not result.won.any()
    assert result.value.isnan().all()
    assert torch.equal(result.point, X)


@SEVERAL
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_sick_example_does_not_touch_the_others(name, bad):
    def network(x):
        z = 10 * (x.sum(1) - 1.9)
        return two(torch.where(x[:, 0] < 0.15, bad, z))  # only the first example can get there

    x = X.clone()
    x[0, 0] = 0.1
    healthy = attack(CALLS[name], network, x[1:], Y[1:], of(name, 0.04), ids=torch.arange(1, 4))
    result = attack(CALLS[name], network, x, Y, of(name, 0.04))
    assert laws.equal(result.rows(torch.arange(1, 4)), healthy)
    assert int(result.status[0]) == Status.NONFINITE
    assert not result.won[0]
    assert torch.isfinite(result.point).all()


@pytest.mark.parametrize("name", [name for name in GRADIENT if name in PLAIN])
def test_nan_gradients_are_said_and_never_won(name):
    laws.nan_gradients_are_said(CALLS[name])


@SEVERAL
def test_a_flat_model_is_said_to_be_flat(name):
    result = attack(CALLS[name], constant, X, Y, of(name))
    blind = Status.ZERO_GRADIENT if ROWS[name].blind else Status.EXHAUSTED
    assert (result.status == blind).all()
    assert not result.won.any()
    assert torch.isfinite(result.point).all()
    if starts_at_x(CALLS[name]):
        assert torch.equal(result.point, X)


def test_a_zero_gradient_on_the_way_does_not_freeze_momentum_for_good():
    """C10: 0/0 in the mean would stay in the velocity as NaN; here the gradient is zero on a plateau in between."""

    def network(x):
        z = x.sum(1)
        return two(torch.where((z > 0.4) & (z < 0.6), 0 * z + 0.5, 1 - z))

    x = torch.full((2, 1), 0.2, dtype=torch.float64)
    result = attack("mi-fgsm(steps=10)", network, x, torch.zeros(2, dtype=torch.int64), Linf(0.9))
    assert torch.isfinite(result.point).all()
    assert result.value.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)  # z = 1, reached through the plateau
    assert (result.status == Status.EXHAUSTED).all()  # one zero among ten gradients is not blindness


def test_fgsm_and_curve_say_it_too():
    with pytest.warns(RuntimeWarning, match="4 a gradient of exactly zero"):
        assert torch.equal(fgsm(constant, X, Y, Linf(0.1)), X)
    with pytest.warns(RuntimeWarning, match="4 have an output or gradient that is not finite"):
        assert torch.equal(fgsm(lambda x: two(x.sum(1) * math.nan), X, Y, Linf(0.1)), X)
    assert (curve(constant, X, Y, Linf(0.1)).status == Status.ZERO_GRADIENT).all()
    found = curve(lambda x: two(x.sum(1) * math.nan), X, Y, Linf(0.1))
    assert (found.status == Status.NONFINITE).all()
    assert not found.broken.any()
    assert found.radius.isinf().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgsm(lambda x: two(x.sum(1)), X, Y, Linf(0.1))


def test_worst_case_says_it_too():
    flat = worst_case(lambda x: 0 * x.sum(1), X, Linf(0.1), recipe="pgd(steps=2)")
    assert (flat.status == Status.ZERO_GRADIENT).all()
    sick = worst_case(lambda x: x.sum(1) * math.nan, X, Linf(0.1), recipe="pgd(steps=2)")
    assert (sick.status == Status.NONFINITE).all()
    assert sick.value.isnan().all()


class Cut(nn.Module):
    """Keeps the gradient from the input by one of the usual accidents."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(4, 2).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return self.last(x)
        if self.how == "detach":
            return self.last(x.detach())
        if self.how == "numpy":
            return self.last(torch.from_numpy(x.detach().numpy()))
        return nn.functional.one_hot(self.last(x).argmax(1), 2).double()


@pytest.mark.parametrize("how", ["no_grad", "detach", "numpy", "argmax"])
def test_a_model_that_cuts_the_gradient_is_an_error_with_a_remedy(how):
    net = Cut(how)
    right = net(X).argmax(1)  # else a search that looks at x first needs no gradient to succeed
    for name in GRADIENT:
        if name in PLAIN:
            with pytest.raises(ModelError, match=r"no gradient reaches.*noise"):
                attack(CALLS[name], net, X, right, of(name, 1e-9))
    for ask in (fgsm, curve):
        with pytest.raises(ModelError, match="no gradient reaches"):
            ask(Cut(how), X, Y, Linf(0.1))
    weights = nn.Parameter(torch.ones(2, dtype=torch.float64))  # a bare function: its weights keep their gradient
    with pytest.raises(ModelError, match="no gradient reaches"):
        attack("fgsm", lambda x: weights * x.detach()[:, :2], X, Y, Linf(0.1))
    assert attack("noise(points=3)", Cut(how), X, Y, Linf(0.1)).forwards.sum() > 0


@pytest.mark.parametrize(
    "network",
    [lambda x: x.sum(1), lambda x: x[:1], lambda x: (x, x), lambda x: x[:, None], lambda x: x.sum(1, keepdim=True)],
    ids=["[N]", "[1, K]", "a tuple", "[N, 1, K]", "[N, 1]"],
)
def test_answers_of_another_form_are_an_error(network):
    for name in PLAIN:
        with pytest.raises(ModelError):
            attack(CALLS[name], network, X, Y, of(name))


def test_data_that_do_not_fit_are_refused_before_the_model_is_asked():
    def network(x):
        raise AssertionError("asked")

    for x, y in [
        (X + 1, Y),
        (X - 1, Y),
        (torch.full_like(X, math.nan), Y),
        (X.long(), Y),
        (X, Y[:2]),
    ]:
        with pytest.raises(DataError):
            attack("fgsm", network, x, y, Linf(0.1))


@pytest.mark.parametrize("name", NAMES)
def test_labels_outside_the_classes_are_refused(name):
    some = case(kind_for(name, "series K=3"))
    classes = 10 if ROWS[name].images else 3
    for wrong in (classes, -1):
        with pytest.raises(DataError, match=f"0 to {classes - 1}"):
            Case(some.network, some.x, torch.full_like(some.y, wrong)).attack(CALLS[name])
    with pytest.raises(DataError, match="integer"):
        Case(some.network, some.x, some.y.double()).attack(CALLS[name])


def test_probabilities_give_the_same_verdicts_as_logits():
    """C13: the handle works on the logarithm of what are probabilities."""
    some = case("image K=10", count=12)
    soft = Model(nn.Sequential(some.network, nn.Softmax(1)))
    soft = soft.with_facts(replace(soft.facts, outputs="probabilities"))
    for text in ("fgsm", "pgd(steps=5)"):
        plain = some.attack(text)
        found = attack(text, soft, some.x, some.y, some.budget("linf"))
        assert torch.equal(found.won, plain.won)
        assert laws.same(found.value, plain.value)
