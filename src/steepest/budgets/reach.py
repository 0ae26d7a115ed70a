"""How large a budget must be to gain so much along a gradient: the distance to a hyperplane, for every set.

The smallest δ with ⟨g, δ⟩ = c inside the box is extreme(g) of the smallest multiple t of the set whose support is c.
In t the support is concave, piecewise smooth and 0 at 0, so one root of one variable answers for every set at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.budgets.contract import Budget, Limits

FAR = 2.0**20
"""The largest multiple that is looked at, as far as `Region.loose` goes."""

_CLOSE = 1e-12
_ROUNDS = 64


def slope(budget: Budget, g: Tensor, limits: Limits) -> Tensor:
    """Return what the first small piece of the budget gains per unit: its dual norm of what can move, float64 [N].

    Away from the box's faces this is ε times the dual norm of g. Sets that are not convex gain in jumps; for them it
    is what the whole budget gains.
    """
    # Where the answer is iterated, nothing to gain may come back as a little less than nothing.
    return budget.support(g.double(), ways(budget, limits)).clamp_min(0)


def ways(budget: Budget, limits: Limits) -> Limits:
    """Return the limits that `slope` asks within: a convex set's first piece knows only what can move at all."""
    if not budget.convex:
        return limits
    low, high = limits
    return torch.where(low < 0, -torch.inf, 0.0).double(), torch.where(high > 0, torch.inf, 0.0).double()


def reach(budget: Budget, g: Tensor, gain: Tensor, limits: Limits) -> Tensor:
    """Return the smallest t ≥ 0 for which t · B gains `gain` [N] along g, float64 [N]; `FAR` where none does.

    Secants through the last two points left of the root: of a concave function they lie above it, so t rises to the
    root without passing it, and ends there after finitely many pieces.

    >>> from steepest.budgets.linf import Linf
    >>> free = (torch.full((1, 2), -0.5), torch.tensor([[0.1, 0.5]]))
    >>> reach(Linf(1.0), torch.ones(1, 2), torch.tensor([0.4]), free)     # 0.1 + 0.3: the first meets its limit
    tensor([0.3000], dtype=torch.float64)
    """
    wide, wanted = g.double(), gain.double().clamp_min(0)
    if not budget.convex:
        return _bisected(budget, wide, wanted, limits)
    # Exact where no limit is met on the way; where nothing can be gained it is ∞.
    t = torch.where(wanted > 0, wanted / slope(budget, g, limits), 0.0).clamp_max(FAR)
    has = budget.scaled(t).support(wide, limits)
    if not bool((wanted - has > _CLOSE * wanted).any()):
        return t
    within = wanted < budget.scaled(FAR).support(wide, limits)
    return torch.where(within, _risen(budget, wide, wanted, limits, t), torch.where(wanted > 0, FAR, 0.0))


def nearest(budget: Budget, g: Tensor, gain: Tensor, limits: Limits) -> Tensor:
    """Return the δ of the smallest gauge with ⟨g, δ⟩ = gain inside the limits, float64 [N, *features].

    A negative gain is sought against g. Where no δ gains so much, it is the one that gains most; 0 where g is 0.
    """
    turned = torch.where((gain < 0).reshape(-1, *[1] * (g.ndim - 1)), -g, g).double()
    return budget.scaled(reach(budget, turned, gain.abs(), limits)).extreme(turned, limits)


def _risen(budget: Budget, g: Tensor, wanted: Tensor, limits: Limits, t: Tensor) -> Tensor:
    before, had = torch.zeros_like(t), torch.zeros_like(t)
    for _ in range(_ROUNDS):
        has = budget.scaled(t).support(g, limits)
        short = (wanted - has > _CLOSE * wanted) & (has > had) & (t < FAR)
        if not bool(short.any()):
            break
        further = t + (wanted - has) * (t - before) / (has - had)
        before, had, t = (torch.where(short, new, old) for new, old in ((t, before), (has, had), (further, t)))
        t = t.clamp_max(FAR)
    return t


def _bisected(budget: Budget, g: Tensor, wanted: Tensor, limits: Limits) -> Tensor:
    low, high = torch.zeros_like(wanted), torch.where(wanted > 0, FAR, 0.0)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        enough = budget.scaled(middle).support(g, limits) >= wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high
