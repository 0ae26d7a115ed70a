"""How much a difference of two outputs can change: constants of z_y − z_k, in L2 and coordinate by coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.affine import affine_of
from steepest.certify.steepness import curved_pull
from steepest.certify.stretching import absolute_pull, stretching
from steepest.models.traced import Graph

_ROWS = 256
"""So many rows are pulled through the network at once."""

_ROUNDING = 1e-11
"""Constants are moved upwards by more than the rounding of what they are summed from, relatively."""


def contrasts(y: int, outputs: int) -> Tensor:
    """Return the rows e_y − e_k for every class k, float64 [K, K]; that of y itself is 0.

    >>> contrasts(0, 3)[1].tolist()
    [1.0, -1.0, 0.0]
    """
    rows = torch.zeros(outputs, outputs, dtype=torch.float64)
    rows[:, y] = 1
    return rows - torch.eye(outputs, dtype=torch.float64)


def head(graph: Graph, rows: Tensor) -> dict[int, Tensor]:
    """Return Aₛ with rows·Δz = Σₛ AₛΔhₛ exactly: through what is affine, back to curved steps s or the input, 0.

    Args:
        rows: float64 [M, K].

    Returns:
        By step, [M, *shape].
    """
    found: dict[int, Tensor] = {len(graph.steps) - 1: rows}
    for at in range(len(graph.steps) - 1, 0, -1):
        affine = affine_of(graph, at) if at in found else None
        if affine is not None:
            for source, part in zip(affine.sources, affine.pull(found.pop(at)), strict=True):
                found[source] = found[source] + part if source in found else part
    return found


def euclidean(graph: Graph, rows: Tensor, totals: tuple[float, ...]) -> Tensor:
    """Return L with |rows·Δz| ≤ L·‖Δx‖₂, float64 [M]: Σₛ‖Aₛ‖₂Lₛ over the steps of `head`.

    Exact where the whole network is affine.

    Args:
        totals: Lₛ of every step, the input's (1) first.
    """
    found = []
    for part in torch.split(rows, _ROWS):
        constant = torch.zeros(len(part), dtype=torch.float64)
        for at, pulled in head(graph, part).items():
            # An infinite bound times a row of zeros says nothing, and is no NaN.
            size = flat(pulled).norm(dim=1)
            constant = constant + torch.where(size > 0, size * totals[at], 0.0)
        found.append(constant * (1 + _ROUNDING))
    return torch.cat(found) if found else rows.new_zeros(0)


def coordinatewise(graph: Graph, rows: Tensor) -> Tensor:
    """Return c ≥ 0 with |rows·Δz| ≤ Σᵢ cᵢ|Δxᵢ|, float64 [M, *features]: |w|ᵀ|W_L−1|…|W₁| with each slope's bound.

    What is affine behind the last curved steps is taken with its signs.
    """
    found = []
    for part in torch.split(rows, _ROWS):
        signed = head(graph, part)
        weights: dict[int, Tensor] = {}
        for at in range(len(graph.steps) - 1, 0, -1):
            weight = weights.pop(at, None)
            if at in signed:
                own = signed.pop(at).abs()
                weight = own if weight is None else weight + own
            if weight is None:
                continue
            affine = affine_of(graph, at)
            pulled = curved_pull(graph, at, weight) if affine is None else absolute_pull(graph, at, weight)
            for source, piece in zip(graph.steps[at].sources, pulled, strict=True):
                weights[source] = weights[source] + piece if source in weights else piece
        shape = graph.steps[0].shape
        total = weights.get(0, torch.zeros(len(part), *shape, dtype=torch.float64))
        total = total + signed[0].abs() if 0 in signed else total
        found.append(total * (1 + _ROUNDING))
    return torch.cat(found) if found else rows.new_zeros(0, *graph.steps[0].shape)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The L2 constants of all differences of outputs, found for each label when it is first asked for.

    Attributes:
        totals: Lₛ of every step.
    """

    graph: Graph
    totals: tuple[float, ...]
    known: dict[int, Tensor]

    @staticmethod
    def of_graph(graph: Graph) -> Pairs:
        """Return the constants of a graph; its steps are bounded here.

        Raises:
            NoCertificateError: an operation has no rule.
        """
        return Pairs(graph=graph, totals=(1.0, *(step.total for step in stretching(graph))), known={})

    def of(self, y: Tensor) -> Tensor:
        """Return L_yk for the labels y [N] and every class k, float64 [N, K]; 0 for y itself."""
        for label in set(y.tolist()) - set(self.known):
            self.known[label] = euclidean(self.graph, contrasts(label, self.graph.outputs), self.totals)
        if not len(y):
            return torch.zeros(0, self.graph.outputs, dtype=torch.float64)
        return torch.stack([self.known[label] for label in y.tolist()])

    @property
    def steepest(self) -> float:
        """√2 times the bound of the whole network: no difference of two outputs has a larger constant."""
        return math.sqrt(2) * self.totals[-1]
