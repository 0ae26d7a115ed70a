"""Projection and maximisation over the common points of two sets that each can be projected on.

The alternating direction method of multipliers (Boyd et al. 2011, section 5) minimises pull/2·‖δ − v‖² − ⟨g, δ⟩ over
A ∩ B. Rows know nothing of each other: each has its own penalty, and stands still once it has converged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import expand, flat
from steepest.budgets.contract import Budget

Projection = Callable[[Tensor], Tensor]
"""[N, d] float64 → the nearest points of a convex set, row by row."""

_TURNS = 1000
"""At most so many rounds; a row that is not done by then is used as it is."""

_CLOSE = 1e-10
"""A row is done when its two answers agree, and neither moves, to this share of the size of the set."""

_SLACK = 2.0**-50
"""Enough for the rounding of one division."""

_RELAXED = 1.6
_PATIENT = 300
"""After so many rounds penalties stay: only then the method is known to converge."""


def nearest(first: Projection, second: Projection, v: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the point of A ∩ B nearest to v twice: as a point of A and as a point of B, [N, d] each.

    Args:
        first, second: the projections on A and on B.
        v: [N, d], float64.
        size: the length of the longest vector of A ∩ B, roughly, [N].
    """
    here, there, _ = _solved(first, second, v, 1.0, size)
    return here, there


def farthest(first: Projection, second: Projection, g: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximiser of ⟨g, δ⟩ over A ∩ B twice, as `nearest`; 0 where g is 0."""
    here, there, _ = _solved(first, second, _unit(g)[0], 0.0, size)
    return here, there


def shares(first: Projection, second: Projection, g: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return (a, b) with a + b = g, so that ⟨g, δ⟩ ≤ max over A of ⟨a, ·⟩ + max over B of ⟨b, ·⟩ for δ in A ∩ B.

    That holds for any two parts of g; these come from the search for the maximiser, where both sides meet.
    """
    unit, long = _unit(g)
    _, _, price = _solved(first, second, unit, 0.0, size)
    return g - price * long, price * long


def _unit(g: Tensor) -> tuple[Tensor, Tensor]:
    """Return g at length 1, 0 where it is 0, and its length [N, 1]."""
    top = g.abs().amax(1, keepdim=True) if g.shape[1] else g.sum(1, keepdim=True)
    scaled = torch.where(top > 0, g / top, 0.0)
    length = scaled.square().sum(1, keepdim=True).sqrt()
    return torch.where(length > 0, scaled / length, 0.0), top * length


def _solved(
    first: Projection, second: Projection, aim: Tensor, pull: float, size: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the method: `aim` is v where there is a pull towards it, else the direction g of length 1.

    Returns:
        (the point of A, the point of B, what the second side asks for leaving B: outwards from B there).
    """
    scale = size.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    penalty = torch.ones_like(scale) if pull else 1 / scale
    here, there, debt = torch.zeros_like(aim), torch.zeros_like(aim), torch.zeros_like(aim)
    done = (size <= 0)[:, None] | (aim == 0).all(1, keepdim=True)
    for turn in range(_TURNS):
        if bool(done.all()):
            break
        a = first((aim + penalty * (there - debt)) / (pull + penalty))
        mixed = _RELAXED * a + (1 - _RELAXED) * there
        b = second(mixed + debt)
        apart, moved = _length(a - b), _length(b - there)
        here, debt = torch.where(done, here, a), torch.where(done, debt, debt + mixed - b)
        there = torch.where(done, there, b)
        done = done | ((apart <= _CLOSE * scale) & (moved <= _CLOSE * scale))
        if turn % 10 == 9 and turn < _PATIENT:
            factor = torch.where(apart > 5 * moved, 2.0, torch.where(moved > 5 * apart, 0.5, 1.0))
            penalty, debt = penalty * factor, debt / factor
    return here, there, debt * penalty


def require_convex(budget: Budget, who: str) -> None:
    """Refuse a member whose projections do not lead to a common point.

    Raises:
        UsageError: the budget is not convex.
    """
    if not budget.convex:
        raise UsageError(
            f"{who}: {budget!r} is not convex, and projections on it need not lead to a common point. Combine convex "
            "budgets; L0 limits its values by L0(k, reach=ε) and by the box."
        )


def shrunk(delta: Tensor, gauge: Tensor) -> Tensor:
    """Return δ scaled back to gauge 1 where it is more, and 0 where no scale helps: convex sets hold 0."""
    inside = torch.where(gauge > 1, (1 - _SLACK) / gauge, torch.ones_like(gauge))
    return torch.where(expand(inside > 0, delta), delta * expand(inside, delta), torch.zeros_like(delta))


def length(v: Tensor) -> Tensor:
    """Return the Euclidean length of each row, float64 [N]."""
    return flat(v).double().square().sum(1).sqrt()


def _length(v: Tensor) -> Tensor:
    return v.square().sum(1, keepdim=True).sqrt()
