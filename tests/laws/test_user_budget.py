"""A set that somebody else wrote, by the contract alone: every attack serves it, and an audit counts with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tests.conformance.table import ROWS
from torch import nn

from steepest.attacks.api import attack
from steepest.attacks.recipes import ATTACKS
from steepest.audit.api import audit
from steepest.basis.box import Box
from steepest.budgets.region import Region
from steepest.models.model import Model


@dataclass(frozen=True)
class Shifts:
    """Every channel of [N, C, T] moves as a whole: δ[c, :] is a constant of at most ε. One line per question."""

    epsilon: float | torch.Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    def fitted(self, shape):
        return self

    def rows(self, index):
        return replace(self, epsilon=self.epsilon[index]) if isinstance(self.epsilon, torch.Tensor) else self

    def scaled(self, factor):
        return replace(self, epsilon=self.epsilon * factor)

    def reach(self, v, limits):
        side = self.each(v)[:, None, None].expand(*v.shape[:2], 1)
        if limits is None:
            return -side, side
        low, high = (part.expand_as(v) for part in limits)
        return torch.maximum(-side, low.amax(2, keepdim=True)), torch.minimum(side, high.amin(2, keepdim=True))

    def each(self, v):
        return torch.as_tensor(self.epsilon, dtype=torch.float64).expand(v.shape[0])

    def extreme(self, g, limits=None):
        total = g.double().sum(2, keepdim=True)
        low, high = self.reach(g, limits)
        move = torch.where(total > 0, high, torch.where(total < 0, low, 0.0))
        return move.expand(g.shape).to(g.dtype)

    def support(self, g, limits=None):
        return (g.double() * self.extreme(g.double(), limits)).flatten(1).sum(1)

    def project(self, delta, limits=None):
        low, high = self.reach(delta, limits)
        return delta.double().mean(2, keepdim=True).clamp(low, high).expand(delta.shape).to(delta.dtype)

    def ascend(self, g, limits=None):
        return self.extreme(g).clone()

    def sample(self, like, stream, step, limits=None):
        low, high = self.reach(like, limits)
        return (low + (high - low) * stream.uniform(step, (like.shape[1], 1))).expand(like.shape)

    def norm(self, delta):
        return delta.double().abs().flatten(1).amax(1)

    def gauge(self, delta):
        return self.gauge_within(delta, torch.zeros_like(delta))

    def settled(self, x, delta):
        return (x.double() + delta).to(x.dtype)

    def gauge_within(self, delta, ulp):
        middle = delta.double().mean(2, keepdim=True)
        together = ((delta - middle).abs() <= 2 * ulp).flatten(1).all(1)
        size = (delta.abs() - ulp).clamp_min(0).flatten(1).amax(1)
        ratio = torch.where(size == 0, 0.0, size / self.each(delta))
        return torch.where(together, ratio, torch.inf)

    def hull(self, like):
        side = self.each(like)[:, None, None]
        return -side, side


def weights() -> torch.Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Line(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x.double() * weights()).flatten(1).sum(1)
        return torch.stack([-score, score], 1) / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("call", ATTACKS.names())
def test_every_attack_serves_it_and_gains_what_the_closed_form_says(call, dtype):
    """On a linear model the best gain is ε Σ over channels |Σ over times w|."""
    entry = ATTACKS.entry(call)
    if "any" not in entry.facts["budgets"] or ROWS[call].images:
        pytest.skip("declared for certain sets, or for images only")
    x = torch.full((4, 3, 4), 0.5, dtype=dtype)
    budget = Shifts(0.125)
    y = torch.zeros(4, dtype=torch.int64)
    before = (x.double() * weights()).flatten(1).sum(1)
    result = attack(ROWS[call].solves or ROWS[call].call, Model(Line()), x, y, budget, drop_solved=False)
    best = 0.125 * float(weights().sum(1).abs().sum())
    assert (Region(budget, Box(0, 1), x).gauge(result.point) <= 1).all()
    assert (result.value - before <= best + 1e-6).all()
    if call in ("fgsm", "bim", "pgd", "mi-fgsm", "greedy-swap"):
        assert torch.allclose(result.value - before, torch.full_like(before, best), atol=1e-5)


def test_an_audit_counts_with_it(tmp_path):
    """The audit's number is that of the closed form: right at x, and out of the reach of the budget."""
    x = torch.rand(40, 3, 4, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25
    margin = (x.double() * weights()).flatten(1).sum(1)
    y = (margin > 0).long()
    reach = 0.125 * float(weights().sum(1).abs().sum())
    run = audit(Model(Line()), (x, y), Shifts(0.125), preset="quick", out=tmp_path / "a", allow_chance=True)
    assert run.clean_accuracy == 1
    assert run.robust_accuracy == pytest.approx(float((margin.abs() > reach).double().mean()))
    assert 0 < run.robust_accuracy < 1
