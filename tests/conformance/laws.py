"""The laws of every attack as plain functions, so that broken attacks can be shown to break them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from steepest.attacks.api import pose
from steepest.attacks.contract import AttackResult, Problem, Status
from steepest.basis.box import Box
from steepest.budgets.contract import Budget
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from steepest.budgets.weighted import Weighted
from steepest.models.model import Model
from tests.conformance.cases import Case, starts_at_x
from tests.conformance.table import ROWS
from tests.tables import budgets

CLOSE = 1e-5
"""How far points and values may differ between batch sizes: kernels differ by batch size."""


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=CLOSE, atol=CLOSE, equal_nan=True)


def inside(point: Tensor, x: Tensor, budget: Budget, name: str) -> Tensor:
    """Bool [N]: feasible without any tolerance, in float64; plain norms where the name says which."""
    delta = (point.double() - x.double()).flatten(1)
    kind = name.removeprefix("masked ")
    sizes = {"linf": delta.abs().amax(1), "l2": delta.square().sum(1).sqrt(), "l1": delta.abs().sum(1)}
    small = sizes[kind] <= float(torch.as_tensor(getattr(budget, "epsilon", 1))) if kind in sizes else True
    in_box = ((point.double() >= 0) & (point.double() <= 1)).flatten(1).all(1)
    return in_box & small & (measured(budget, point, x) <= 1)


def measured(budget: Budget, point: Tensor, x: Tensor) -> Tensor:
    """The gauge, straight from the budget; only a set that no grid of numbers meets is asked through its region."""
    if budget.monotone:
        return budget.fitted(tuple(x.shape)).gauge(point.double() - x.double())
    return Region(budget, Box(0, 1), x).gauge(point)


def stays_feasible(case: Case, text: str, name: str) -> None:
    """Every point is inside, exactly, and in the caller's precision."""
    result, budget = case.attack(text, name), case.budget(name)
    assert result.point.dtype == case.x.dtype
    assert result.point.shape == case.x.shape
    assert inside(result.point, case.x, budget, name).all(), f"{text} left {name}"
    assert bool((result.gauge <= 1).all())


def says_what_is_true(case: Case, text: str, name: str) -> None:
    """`won`, `value`, `gauge` and `outputs` are those of the returned point, asked again by an outsider."""
    result = case.attack(text, name)
    margin = case.margin(result.point)
    assert torch.equal(result.won, margin > 0), f"{text}: success is not that of the point"
    assert same(result.value, margin)
    with torch.no_grad():
        assert same(result.outputs, case.network(result.point))
    gauge, monotone = measured(case.budget(name), result.point, case.x), case.budget(name).monotone
    assert torch.equal(result.gauge, gauge) if monotone else same(result.gauge, gauge)
    assert torch.equal(result.status == Status.OK, result.won)


def never_below_its_start(case: Case, text: str, name: str) -> None:
    """No example ends better for the model than at x, and what is wrong at x stays won."""
    at_x = case.margin(case.x)
    for drop in (True, False):
        result = case.attack(text, name, drop_solved=drop)
        better = result.value >= at_x - 1e-12
        assert (better | (result.won & (not starts_at_x(text)))).all(), f"{text} ends below its start"
        assert result.won[at_x > 0].all(), f"{text} forgot an example that is wrong at x"
    if starts_at_x(text):
        result = case.attack(text, name)
        assert (result.gauge[at_x > 0] == 0).all()
        assert torch.equal(result.point[at_x > 0], case.x[at_x > 0])


def equal(a: AttackResult, b: AttackResult) -> bool:
    """Bit-equal in everything."""
    fields = ("point", "won", "gauge", "radius", "value", "outputs", "forwards", "backwards", "status")
    return all(
        torch.equal(torch.nan_to_num(getattr(a, f).double()), torch.nan_to_num(getattr(b, f).double())) for f in fields
    )


def same_seed_same_answer(case: Case, text: str, name: str) -> None:
    first = case.attack(text, name, seed=3)
    torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002 — the global states must not matter
    assert equal(first, case.attack(text, name, seed=3)), f"{text}: the same seed gave another answer"


def rows_are_independent(case: Case, text: str, name: str) -> None:
    """batch = rows, in any order, with any companions, twice the same example included."""
    count = len(case.y)
    ids = torch.arange(count) + 10
    whole = case.attack(text, name, ids=ids)
    order = [*reversed(range(count)), 0, 0, count - 1]
    pieces = [order, *([i] for i in range(count))]
    for piece in pieces:
        part = case.rows(piece).attack(text, name, ids=ids[piece])
        for field in ("won", "status", "forwards", "backwards"):
            assert torch.equal(getattr(part, field), getattr(whole, field)[piece]), f"{text}: {field} of {piece}"
        for field in ("point", "value", "gauge", "outputs"):
            assert same(getattr(part, field), getattr(whole, field)[piece]), f"{text}: {field} of {piece}"


def nothing_moves_without_a_budget(case: Case, text: str, name: str) -> None:
    """ε = 0 gives x bit by bit, and the clean accuracy."""
    result = case.attack(text, budgets(case.shape, 0.0)[name])
    assert torch.equal(result.point, case.x), f"{text} moved although ε = 0"
    assert torch.equal(result.won, case.margin(case.x) > 0)
    assert (result.gauge == 0).all()


def more_effort_never_hurts(case: Case, calls: list[str], name: str) -> None:
    """`calls` in rising order of effort: successes are kept, values never fall.

    The values are those of examples that are right at x: where x is wrong, a random start asks there only if need be.
    """
    right = case.margin(case.x) < 0
    won = torch.zeros(len(case.y), dtype=torch.bool)
    value = torch.full((len(case.y),), -torch.inf, dtype=torch.float64)
    for text in calls:
        solved = case.attack(text, name).won
        assert solved[won].all(), f"{text} lost a success of a smaller effort"
        further = case.attack(text, name, drop_solved=False)
        assert torch.equal(further.won, solved)
        assert (further.value >= value - 1e-9)[right].all(), f"{text}: the best value fell"
        won, value = solved, further.value


def solves_the_linear_model(case: Case, text: str, eps: float) -> None:
    """On a linear model the whole budget is used in the best direction: the gain is ε‖w‖₁."""
    weights = (case.network.weight[1] - case.network.weight[0]).detach()  # of the negative margin
    result = case.attack(text, Linf(eps), drop_solved=False)
    gain = result.value - case.margin(case.x)
    best = eps * float(weights.double().abs().sum())
    assert torch.allclose(gain, torch.full_like(gain, best), rtol=1e-6), f"{text} gains {gain.tolist()}, not {best}"
    assert same(result.point, case.x + eps * weights.sign())


def breaks_what_only_the_full_budget_breaks(case: Case, text: str, eps: float) -> None:
    """`case` needs 95 % of ε in the best direction."""
    assert case.attack(text, Linf(eps)).won.all(), f"{text} does not reach the end of the budget"
    assert not case.attack(text, Linf(eps * 0.9)).won.any()


def posed(network: Callable[[Tensor], Tensor], x: Tensor, budget: Budget, y: Tensor | None = None) -> Problem:
    """The problem of a network in the box [0, 1], label 0 for all."""
    labels = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return pose(Model(network), x, labels, budget)


class Spike(nn.Module):
    """Wrong only where x₀ is within 0.03 of 0.3; a third output rises with x₀ and leads any search past it.

    Remembers which examples were ever wrong; x₁ says whose point it is.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.visited = torch.zeros(count, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        spike = 1 - (x[:, 0] - 0.3).abs() / 0.03
        self.visited[(8 * x[:, 1].detach()).long()[spike.detach() > 0]] = True
        return torch.stack([torch.zeros_like(spike), spike, x[:, 0] - 10], 1)


def keeps_what_it_crossed(text: str) -> None:
    """Silent success: where a valley was crossed on the way, that is what must be returned (C2)."""
    x = torch.tensor([[0.2, 0.0], [0.0, 0.125], [0.25, 0.25], [0.15, 0.375]], dtype=torch.float64)
    case = Case(Spike(4), x, torch.zeros(4, dtype=torch.int64))
    budget = Weighted(1.0, up=torch.tensor([1.0, 0.0]))
    result = case.attack(text, budget, objective=lambda z, y: z[:, 2], drop_solved=False)
    crossed = case.network.visited.clone()
    assert crossed.any()
    assert torch.equal(result.won, crossed), f"{text} visited a success and returned another point"
    assert torch.equal(case.margin(result.point) > 0, crossed)


def nan_gradients_are_said(text: str) -> None:
    """A model whose gradient is NaN is neither robust nor broken: the status says that nothing was learnt."""

    class Poisoned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            zero = (0 * x.flatten(1)).sum(1).sqrt()  # the derivative is 0 · ∞
            return torch.stack([1 + zero, zero], 1)

    x = torch.rand(3, 4, dtype=torch.float64)
    case = Case(Poisoned(), x, torch.zeros(3, dtype=torch.int64))
    result = case.attack(text, budgets((4,), 0.1)[ROWS[text.partition("(")[0]].budget])
    assert (result.status == Status.NONFINITE).all(), f"{text} hides a NaN gradient: {result.status.tolist()}"
    assert not result.won.any()
    assert torch.isfinite(result.point).all()
    assert (result.value == -1).all()
