"""From δ to points of a precision, for every set: monotone ones round towards x, the others settle it themselves."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from steepest.basis.rounding import towards
from steepest.basis.tensors import expand
from steepest.budgets.contract import Budget, Settling

_SLACK = 2.0**-50
"""Enough for the rounding of one division."""


def settled(budget: Budget, x: Tensor, delta: Tensor) -> Tensor:
    """Return x + δ in the precision of x, by the rule of the set."""
    return towards(x, delta) if budget.monotone else cast(Settling, budget).settled(x, delta)


def gauge_within(budget: Budget, delta: Tensor, ulp: Tensor) -> Tensor:
    """Return the gauge by the rule of the set: exact for monotone ones, else as `Settling.gauge_within`."""
    return budget.gauge(delta) if budget.monotone else cast(Settling, budget).gauge_within(delta, ulp)


def shrunk(delta: Tensor, gauge: Tensor) -> Tensor:
    """Return δ scaled back to gauge 1 where it is more, and 0 where no scale helps: convex sets hold 0."""
    inside = torch.where(gauge > 1, (1 - _SLACK) / gauge, torch.ones_like(gauge))
    return torch.where(expand(inside > 0, delta), delta * expand(inside, delta), torch.zeros_like(delta))
