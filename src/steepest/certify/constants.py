"""From Lipschitz constants of all pairs of outputs to a prover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.budgets.extents import absolute_support, euclidean_reach
from steepest.budgets.region import Region
from steepest.certify.walk import lowest, margins, outputs
from steepest.models.traced import Graph


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretched:
    """Margins at x less what L2 constants allow on the way to the farthest point: m_k(x) − L_yk·max ‖p − x‖₂.

    Attributes:
        constants: labels y [N] ↦ L_yk of every class k, [N, K].
    """

    graph: Graph
    constants: Callable[[Tensor], Tensor]

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """See `Prover.lower`."""
        labels = y.cpu()
        here = margins(outputs(self.graph, region.x), labels)
        reach = euclidean_reach(region).cpu()[:, None]
        return lowest(here - _times(self.constants(labels), reach), labels).to(y.device)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coordinatewise:
    """Margins at x less what each coordinate's own constant allows: m_k(x) − max Σᵢ c_yki·|pᵢ − xᵢ|.

    Attributes:
        constants: a label y ↦ c_yk of every class k, at least 0, [K, d].
    """

    graph: Graph
    constants: Callable[[int], Tensor]

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """See `Prover.lower`."""
        labels = y.cpu()
        here = margins(outputs(self.graph, region.x), labels)
        change = torch.empty_like(here)
        for label in set(labels.tolist()):
            rows = (y == label).nonzero().squeeze(1)
            change[rows.cpu()] = absolute_support(region.rows(rows), self.constants(label)).cpu()
        return lowest(here - change, labels).to(y.device)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Return a·b where 0·∞ is 0: what cannot change does not, however far the input may go."""
    return torch.where((a == 0) | (b == 0), 0.0, a * b)
