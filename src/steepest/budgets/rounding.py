"""From δ to points of a precision, for every set: monotone ones round towards x, the others settle it themselves."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from steepest.basis.rounding import towards
from steepest.budgets.contract import Budget, Settling


def settled(budget: Budget, x: Tensor, delta: Tensor) -> Tensor:
    """Return x + δ in the precision of x, by the rule of the set."""
    return towards(x, delta) if budget.monotone else cast(Settling, budget).settled(x, delta)


def gauge_within(budget: Budget, delta: Tensor, ulp: Tensor) -> Tensor:
    """Return the gauge by the rule of the set: exact for monotone ones, else as `Settling.gauge_within`."""
    return budget.gauge(delta) if budget.monotone else cast(Settling, budget).gauge_within(delta, ulp)
