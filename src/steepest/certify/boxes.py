"""Linear conditions on a network's outputs, bounded from below over boxes of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor, nn

from steepest.basis.box import Box
from steepest.certify.grounds import Product
from steepest.certify.linear import Bounds
from steepest.certify.network import Network, network_of
from steepest.certify.slopes import fitted
from steepest.certify.splitting import searched
from steepest.models.loading.adapt import Rebatched
from steepest.models.model import Model
from steepest.models.model import Network as Callee

METHODS = ("intervals", "crown-ibp", "crown", "alpha-crown")
"""From the cheapest to the closest."""

_STEPS = 20
"""Ascents of α-CROWN."""

_NUMBERS = 2**25
"""About so many float64 numbers are held by the ranges of one batch of boxes."""


@final
class Conditions(nn.Module):
    """x ↦ rows · f(x) − most, float64 [N, R]: at most 0 where a condition holds.

    As the last layer of a network, so that a bound of it is one of the conditions, not of single outputs.
    """

    def __init__(self, network: Callee, rows: Tensor, most: Tensor) -> None:
        super().__init__()
        self.network = network
        self.rows, self.most = rows, most
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return by how much each condition is missed."""
        return self.network(x).double() @ self.rows.T - self.most


def conditioned(model: Model, rows: Tensor, most: Tensor, box: Box) -> Model:
    """Return the model of `Conditions` on another model's outputs, for inputs in a box."""
    network, facts = model.network, model.facts
    if isinstance(network, Rebatched):
        inner = Conditions(network.network, rows, most)
        return Model(Rebatched(inner, largest=network.largest, smallest=network.smallest), box, facts=facts)
    return Model(Conditions(network, rows, most), box, facts=facts)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """What is known of R conditions over N boxes.

    Attributes:
        value: float64 [N, R], a lower bound of each; above 0 the condition holds nowhere in the box.
        slope: float64 [N, R, *features], the linear function of the input that it comes from; 0 for intervals.
    """

    value: Tensor
    slope: Tensor

    def closer(self, other: Bounded) -> Self:
        """Return the larger bound of two, for each condition."""
        better = other.value > self.value
        pick = better.reshape(*better.shape, *[1] * (self.slope.ndim - 2))
        return type(self)(
            value=torch.where(better, other.value, self.value), slope=torch.where(pick, other.slope, self.slope)
        )


@final
class Boxes:
    """Bounds of the conditions of one model (`conditioned`) over boxes of inputs of one shape.

    Raises:
        NoCertificateError: an operation of the network has no rule; names it.
    """

    def __init__(self, model: Model, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.network: Network = network_of(model, shape)

    def lower(self, low: Tensor, high: Tensor, wanted: Tensor, method: str) -> Bounded:
        """Return lower bounds over the boxes [low, high], each float64 [N, *shape].

        Args:
            wanted: bool [R], the conditions that are asked about; others get −∞.
            method: of `METHODS`.
        """
        size = sum(int(torch.Size(step.shape).numel()) for step in self.network.graph.steps)
        blocks = torch.split(torch.arange(len(low)), max(1, _NUMBERS // (6 * size)))
        parts = [self._block(low[block], high[block], wanted, method) for block in blocks]
        return Bounded(value=torch.cat([part.value for part in parts]), slope=torch.cat([part.slope for part in parts]))

    def searched(self, low: Tensor, high: Tensor, numbers: Tensor, values: Tensor, seconds: float) -> Tensor:
        """Return lower bounds of the conditions `numbers` [M] over one box [*shape], [M], by splitting activations.

        Args:
            values: lower bounds that are known, [M]; the answer is never below.
            seconds: after which what was proven so far is the answer.
        """
        with torch.no_grad():
            bounds = Bounds.by_intervals(self.network, Product(low[None], high[None])).tightened()
            unit = torch.eye(self.network.graph.outputs, dtype=torch.float64)
            return searched(bounds, unit[numbers], values, seconds=seconds, steps=_STEPS // 2)

    def _block(self, low: Tensor, high: Tensor, wanted: Tensor, method: str) -> Bounded:
        count, total = len(low), len(wanted)
        numbers = wanted.nonzero().squeeze(1)
        value = torch.full((count, total), -torch.inf, dtype=torch.float64)
        slope = torch.zeros(count, total, *self.shape, dtype=torch.float64)
        with torch.no_grad():
            bounds = Bounds.by_intervals(self.network, Product(low, high))
            if method in ("crown", "alpha-crown"):
                bounds = bounds.tightened()
            unit = torch.eye(total, dtype=torch.float64)
            pairs = torch.cartesian_prod(torch.arange(count), numbers).reshape(-1, 2)
            for block in torch.split(pairs, max(1, bounds.rows_at_once() // (4 if method == "alpha-crown" else 1))):
                owner, number = block.unbind(1)
                found, at_input = self._rows(bounds, unit[number], owner, method)
                value[owner, number], slope[owner, number] = found, at_input
        return Bounded(value=value, slope=slope)

    def _rows(self, bounds: Bounds, a: Tensor, owner: Tensor, method: str) -> tuple[Tensor, Tensor]:
        last = self.network.last
        if method == "alpha-crown":
            best = fitted(bounds, a, owner, last, steps=_STEPS)
            return best.value, best.at_input
        carried = bounds.lower(a, owner, last, intervals=method == "intervals")
        return carried.value, carried.at_input
