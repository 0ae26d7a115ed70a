"""Whatever is asked, the model, the caller and the process are afterwards as they were, also after an exception."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch
from torch import nn

from steepest.attacks.api import attack, fgsm
from steepest.attacks.curve import curve
from steepest.attacks.worst_case import worst_case
from steepest.basis.errors import ModelError
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from steepest.models.objectives import CrossEntropy
from tests.conformance import laws
from tests.conformance.cases import CALLS, GRADIENT, NAMES, Case, case, kind_for
from tests.conformance.table import ROWS
from tests.tables import budgets


class Energy(nn.Module):
    """One number per example."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).square().sum(1)


BUDGET = Linf(0.2)
PLAIN = [name for name in NAMES if not ROWS[name].images]
USES = {
    name: (lambda f, x, y, name=name: attack(CALLS[name], f, x, y, budgets((4,), 0.2)[ROWS[name].budget]))
    for name in PLAIN
}
USES |= {
    "st.fgsm": lambda f, x, y: fgsm(f, x, y, BUDGET),
    "Model.slope": lambda f, x, y: Model(f).slope(x, y, CrossEntropy()),
    "st.curve": lambda f, x, y: curve(f, x, y, BUDGET, factors=[0.5, 1.0]),
    "st.worst_case": lambda f, x, y: worst_case(Energy(f), x, BUDGET, recipe="pgd(steps=3)"),
}


class Statistics(nn.BatchNorm1d):
    """Batch statistics of training, which a single example does not have: then it is passed on as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if len(x) > 1 else x


class Stateful(nn.Module):
    """Batch statistics, dropout and noise in training mode; raises at the question numbered `fails_at`."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__()
        self.norm = Statistics(4)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(4, 3)
        self.frozen = nn.Linear(4, 3).eval()
        self.frozen.requires_grad_(False)
        self.register_buffer("nothing", None)
        self.asked, self.fails_at = 0, fails_at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked == self.fails_at:
            raise ZeroDivisionError("the user's own failure")
        jitter = 1e-3 * (random.random() + np.random.rand())  # noqa: NPY002 — the user's global state
        return self.last(self.drop(self.norm(x))) + self.frozen(x) + jitter


def stateful(fails_at: int = 0) -> nn.Module:
    torch.manual_seed(0)
    network = Stateful(fails_at).train()
    network.frozen.eval()
    network(torch.rand(8, 4)).sum().backward()
    network.asked = 0
    return network


def snapshot(network: nn.Module, x: torch.Tensor) -> list[object]:
    """Everything that must not change, as plain values."""
    parameters = [(p.requires_grad, p.tolist(), None if p.grad is None else p.grad.tolist())
                  for p in network.parameters()]  # fmt: skip
    return [
        [part.training for part in network.modules()],
        [(name, id(b), None if b is None else b.tolist()) for m in network.modules() for name, b in m._buffers.items()],
        parameters,
        torch.get_rng_state().tolist(),
        [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
        (x.tolist(), x.requires_grad, x.grad, x.grad_fn),
        torch.is_grad_enabled(),
    ]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("wants", [False, True])
def test_model_and_caller_are_as_they_were(use, wants):
    network, y = stateful(), torch.arange(6) % 3
    x = torch.rand(6, 4, requires_grad=wants)
    before = snapshot(network, x)
    USES[use](network, x, y)
    for was, now in zip(before, snapshot(network, x), strict=True):
        assert was == now


@pytest.mark.parametrize("use", USES)
def test_also_after_an_exception_which_passes_through(use):
    """C14: an attack that fails is an error, never a robust example."""
    network, y, x = stateful(fails_at=2), torch.arange(6) % 3, torch.rand(6, 4)
    before = snapshot(network, x)
    if use in ("st.fgsm", "Model.slope"):
        network.fails_at = 1
    with pytest.raises(ZeroDivisionError, match="the user's own failure"):
        USES[use](network, x, y)
    for was, now in zip(before, snapshot(network, x), strict=True):
        assert was == now


def test_the_state_of_random_is_put_back_too():
    """By itself: the type checks of the test suite draw from `random` while a whole attack runs."""
    handle = Model(stateful())
    before = random.getstate()
    with handle.borrowed(3):
        inside = random.random()
    assert random.getstate() == before
    with handle.borrowed(3):
        assert random.random() == inside
    with pytest.raises(ZeroDivisionError), handle.borrowed(None):
        random.random() / 0
    assert random.getstate() == before


@pytest.mark.parametrize("name", PLAIN)
def test_a_random_model_answers_the_same_for_the_same_seed(name):
    network, x, y = stateful(), torch.rand(6, 4), torch.arange(6) % 3
    budget = budgets((4,), 0.2)[ROWS[name].budget]
    first = attack(CALLS[name], network, x, y, budget, seed=1)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert laws.equal(first, attack(CALLS[name], network, x, y, budget, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_results_carry_no_graph_and_share_no_memory_with_x(name):
    some = case(kind_for(name, "series K=3"), torch.float32)
    x = some.x.clone().requires_grad_()
    result = attack(CALLS[name], some.network, x, some.y, some.budget(ROWS[name].budget))
    for field in ("point", "value", "gauge", "outputs"):
        assert getattr(result, field).grad_fn is None
        assert not getattr(result, field).requires_grad
    assert torch.equal(x, some.x)


def test_weights_get_no_gradient_and_grad_mode_of_the_caller_does_not_matter():
    some = case("vector K=2")
    for parameter in some.network.parameters():
        parameter.grad = None
    plain = some.attack("pgd(steps=3)")
    assert all(p.grad is None and p.requires_grad for p in some.network.parameters())
    with torch.no_grad():
        assert laws.equal(plain, some.attack("pgd(steps=3)"))
        assert torch.equal(fgsm(some.network, some.x, some.y, BUDGET), fgsm(some.network, some.x, some.y, BUDGET))


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 0.5
        return torch.stack([x.sum(1), -x.sum(1)], 1)


@pytest.mark.parametrize("name", PLAIN)
def test_a_model_that_writes_into_its_input_cannot_spoil_the_data_unnoticed(name):
    x = torch.rand(3, 4)
    kept, some = x.clone(), Case(InPlace(), x, torch.zeros(3, dtype=torch.int64))
    # Where a gradient is asked for, autograd itself objects first.
    with pytest.raises((ModelError, RuntimeError), match=r"in.place"):
        some.attack(CALLS[name])
    if name in GRADIENT and not ROWS[name].looks_first:
        assert torch.equal(x, kept)


def alive() -> int:
    """How many tensors and objects of ours the process holds."""
    gc.collect()
    kinds = [type(o) for o in gc.get_objects()]
    return sum(kind in (torch.Tensor, nn.Parameter) or str(kind.__module__).startswith("steepest.") for kind in kinds)


def test_memory_is_flat_over_many_calls():
    some = case("vector K=2", torch.float32)
    uses = [lambda: some.attack("pgd(steps=2, restarts=2)", "l2"), lambda: some.attack("noise(points=3)"),
            lambda: curve(some.network, some.x, some.y, BUDGET, factors=[0.5, 1.0])]  # fmt: skip
    for use in uses * 3:
        use()
    before = alive()
    for use in uses * 8:
        use()
    assert alive() <= before
