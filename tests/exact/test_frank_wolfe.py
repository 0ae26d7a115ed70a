"""Frank-Wolfe: its rate on concave bowls, and the gap that bounds what any search has left to gain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steepest.attacks.gap import frank_wolfe_gap
from steepest.attacks.worst_case import worst_case
from steepest.basis.box import Box
from steepest.basis.streams import Stream
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from tests.tables import CLOSED, budgets

A = torch.tensor([0.6, -0.8, 0.1, 0.3], dtype=torch.float64)
X = torch.tensor([[0.2, 0.9, 0.5, 0.0]], dtype=torch.float64)
C = 3.0


def bowl(p: Tensor) -> Tensor:
    """⟨a, δ⟩ − c|δ|²/2 around X: concave, its top at a/c, which every projection of a/c onto a set approaches."""
    delta = p - X
    return delta @ A - C * delta.square().sum(1) / 2


def slope(p: Tensor) -> Tensor:
    return A - C * (p - X)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("eps", [0.05, 0.5])
def test_the_gap_bounds_what_is_missing_and_closes_at_the_top(name, eps):
    """max L − L(p) ≤ gap(p) on a concave model; the maximiser, Proj(x + a/c), has gap 0."""
    region = Region(budgets((4,), eps)[name], Box(0, 1), X)
    top = region.project(X + A / C)
    best = bowl(top)
    assert frank_wolfe_gap(region, top, slope(top)).item() == pytest.approx(0, abs=1e-9)
    missing = []
    for step in range(20):
        p = (region.sample if step % 2 else region.corner)(Stream.of(3, torch.arange(1)), step)
        missing.append(float(best - bowl(p)))
        assert -1e-12 <= missing[-1] <= frank_wolfe_gap(region, p, slope(p)).item() + 1e-12
    assert max(missing) > 1e-4


@pytest.mark.parametrize("eps", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_what_is_missing_falls_as_fast_as_the_theorem_says(kind, eps):
    """At most 2·c·diam²/(t + 2) after t steps (Jaggi 2013); a rule that stays at corners does not keep it."""
    region = Region(kind(eps), Box.of(None), X)
    best = bowl(region.project(X + A / C)).item()
    width = (2 * eps) ** 2 * (4 if kind is Linf else 1)
    for steps in (1, 2, 5, 20, 80):
        found = worst_case(bowl, X, kind(eps), recipe=f"frank-wolfe(steps={steps})").value.item()
        assert -1e-12 <= best - found <= 2 * C * width / (steps + 2)
    assert best - found < 2e-3
