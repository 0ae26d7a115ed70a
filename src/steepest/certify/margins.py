"""Provers that bound the margins of a network over regions: interval arithmetic, and what is closer than that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.budgets.region import Region
from steepest.certify.grounds import Around
from steepest.certify.linear import Bounds, margin_rows
from steepest.certify.network import Network
from steepest.certify.slopes import fitted
from steepest.certify.splitting import searched

_NUMBERS = 2**25
"""About so many float64 numbers are held by the ranges of one batch of examples."""

Margins = Callable[[Bounds, Tensor, Tensor], Tensor]
"""(bounds, rows, the example of each row) → lower bounds of the rows."""


@final
@dataclass(frozen=True, slots=True)
class Walker:
    """A prover of one method; stronger methods contain the weaker ones, so their word is never below.

    Attributes:
        margins: the method.
    """

    network: Network
    margins: Margins

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """See `Prover.lower`."""
        if not len(y):
            return torch.zeros(0, dtype=torch.float64)
        ground, parts = Around(region), []
        size = sum(int(torch.Size(step.shape).numel()) for step in self.network.graph.steps)
        with torch.no_grad():
            for block in torch.split(torch.arange(len(y)), max(1, _NUMBERS // (6 * size))):
                a, owner = margin_rows(y[block], self.network.graph.outputs)
                bounds = Bounds.by_intervals(self.network, ground.rows(block))
                found = self.margins(bounds, a, owner).reshape(len(block), -1)
                parts.append(found.amin(1))
        return torch.cat(parts)


def by_intervals(bounds: Bounds, a: Tensor, owner: Tensor) -> Tensor:
    """Return interval bounds of margins: whole rows from the last bent step on, not single logits."""
    return bounds.lower(a, owner, bounds.network.last, intervals=True).value


def by_one_pass(bounds: Bounds, a: Tensor, owner: Tensor) -> Tensor:
    """Return bounds by a pass through relaxations over interval bounds (CROWN-IBP)."""
    return by_intervals(bounds, a, owner).maximum(_passed(bounds, a, owner))


def by_passes(bounds: Bounds, a: Tensor, owner: Tensor) -> Tensor:
    """Return bounds by a pass through relaxations over bounds that passes found (CROWN)."""
    return by_one_pass(bounds, a, owner).maximum(_passed(bounds.tightened(), a, owner))


def by_slopes(bounds: Bounds, a: Tensor, owner: Tensor, *, steps: int) -> Tensor:
    """Return bounds by passes whose slopes are fitted for every margin that is not proven yet (α-CROWN)."""
    return _fitted(bounds, bounds.tightened(), a, owner, steps)


def by_splitting(bounds: Bounds, a: Tensor, owner: Tensor, *, seconds: float, steps: int) -> Tensor:
    """Return bounds by splitting, for so many seconds, every example that fitted slopes leave open (β-CROWN)."""
    closer = bounds.tightened()
    best = _fitted(bounds, closer, a, owner, 2 * steps)
    for example in range(len(bounds.ground.low)):
        mine = (owner == example).nonzero().squeeze(1)
        if bool((best[mine] <= 0).any()):
            alone = closer.rows(torch.tensor([example]))
            best[mine] = searched(alone, a[mine], best[mine], seconds=seconds, steps=steps)
    return best


def _fitted(bounds: Bounds, closer: Bounds, a: Tensor, owner: Tensor, steps: int) -> Tensor:
    best = by_one_pass(bounds, a, owner).maximum(_passed(closer, a, owner))
    open_rows = (best <= 0).nonzero().squeeze(1)
    for block in torch.split(open_rows, max(1, bounds.rows_at_once() // 4)):
        found = fitted(closer, a[block], owner[block], bounds.network.last, steps=steps)
        best[block] = best[block].maximum(found.value)
    return best


def _passed(bounds: Bounds, a: Tensor, owner: Tensor) -> Tensor:
    blocks = torch.split(torch.arange(len(a)), bounds.rows_at_once())
    return torch.cat([bounds.lower(a[block], owner[block], bounds.network.last).value for block in blocks])
