"""From bounds inside one region to the largest size that is proven."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.budgets.region import Region
from steepest.certify.contract import Prover

CAP = 64.0
"""No size beyond so many budgets is asked about: what holds there is as good as unlimited."""

TOLERANCE = 1e-3
"""How close, relative to the size itself, the largest proven size and the smallest unproven one come."""

_ROUNDS, _LEAP = 40, 8.0
"""At most so many bounds an example; beyond what is proven, at most so many times farther at once."""


def proven_gauge(
    prover: Prover, region: Region, y: Tensor, *, right: Tensor, tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Return (the largest factor t of the budget that was asked about and is proven, the bound at t = 1), float64 [N].

    The bound falls as the region grows, so proven and unproven sizes enclose the answer: secants close in on it, on
    an affine model in two or three questions, and halving takes over where they do not. Every t that comes back was
    asked about itself; none is interpolated.

    Args:
        right: bool [N], the model is right at x; elsewhere t is 0.
        tolerance: stop where the smallest unproven size is within this share of the largest proven one.

    >>> from steepest.basis.box import Box
    >>> from steepest.budgets.linf import Linf
    >>> class Falling:
    ...     def lower(self, region, y):
    ...         return 3 - torch.as_tensor(region.budget.epsilon).double().reshape(-1).expand(len(y))
    >>> x, y = torch.zeros(1, 2), torch.tensor([0])
    >>> gauge, margin = proven_gauge(Falling(), Region(Linf(2.0), Box.of(None), x), y, right=y == 0)
    >>> 1.498 < float(gauge) < 1.5, float(margin)
    (True, 1.0)
    """
    margin = _asked(prover, region, y)
    state = _State(margin)
    rows = right.nonzero().squeeze(1)
    nothing = torch.zeros(len(rows), dtype=torch.float64, device=y.device)
    # What holds for the budget itself holds for a smaller one.
    at_x = _asked(prover, region.rows(rows).scaled(nothing), y[rows]).fmax(margin[rows])
    state.take(rows, nothing, at_x)
    rows = rows[at_x > 0]
    state.take(rows, torch.ones_like(margin)[rows], margin[rows])
    for number in range(_ROUNDS):
        rows = rows[~state.closed(rows, tolerance)]
        if not len(rows):
            break
        size = state.proposed(rows, tolerance, halve=number % 5 == 4)
        state.take(rows, size, _asked(prover, region.rows(rows).scaled(size), y[rows]))
    return state.low, margin


def _asked(prover: Prover, region: Region, y: Tensor) -> Tensor:
    return (
        prover.lower(region, y).double().nan_to_num(nan=-torch.inf) if len(y) else torch.zeros(0).double().to(y.device)
    )


class _State:
    """What is known of each example; changed in place.

    Attributes:
        low, high: the largest proven and the smallest unproven size.
        last, before: the sizes asked about last, [N, 2] with the bounds there: secants go through both.
    """

    def __init__(self, like: Tensor) -> None:
        self.low, self.high = torch.zeros_like(like), torch.full_like(like, torch.inf)
        self.last = self.before = torch.full_like(like, torch.nan)[:, None].repeat(1, 2)

    def take(self, rows: Tensor, size: Tensor, bound: Tensor) -> None:
        """Take in the bounds at one size of each of the examples `rows`."""
        proven = bound > 0
        self.low[rows[proven]], self.high[rows[~proven]] = size[proven], size[~proven]
        self.before = self.last.clone()
        self.last[rows] = torch.stack([size, bound], 1)

    def closed(self, rows: Tensor, tolerance: float) -> Tensor:
        """Whether no more is to be asked: both sizes are close, or the proven one is at the cap."""
        low, high = self.low[rows], self.high[rows]
        return (low >= CAP) | (high - low <= tolerance * low) | (high < 2.0**-40)

    def proposed(self, rows: Tensor, tolerance: float, *, halve: bool) -> Tensor:
        """Return where to ask next: a little on the other side of where the secant meets 0."""
        low, high, (size, bound) = self.low[rows], self.high[rows], self.last[rows].unbind(1)
        other, there = self.before[rows].unbind(1)
        root = size - bound * (size - other) / (bound - there)
        step = tolerance / 3 * root
        aimed = torch.where(bound > 0, root + step, root - step)
        # No more than is allowed at once, where the end is open; a secant that leaves what is known says nothing.
        far = (low * _LEAP).clamp(min=2.0**-10, max=CAP)
        aimed = torch.where(high.isinf(), torch.where(aimed > low, aimed, far).minimum(far), aimed)
        inside = (aimed > low) & (aimed < high) & (not halve)
        return torch.where(inside, aimed, torch.where(high.isinf(), far, (low + high) / 2))
