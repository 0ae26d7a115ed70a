"""The exact margin of a network that is one affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.budgets.region import Region
from steepest.certify.affine import affine_of
from steepest.certify.catalogue import Method, certifier
from steepest.certify.walk import graph_of
from steepest.models.model import Model
from steepest.models.traced import Graph

_RELATIVE, _ROUNDING = 1e-9, 1e-13
"""How far a bound is moved outwards: a share of its parts, and of what was rounded on the way to them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffineMargin:
    """min over the region of z_y − z_k = (w_y − w_k)·x + b_y − b_k − support(w_k − w_y), the least over k.

    Attributes:
        slope, offset: W [K, *features] and b [K], float64.
        largest: the largest number met on the way to them, which roundings are relative to.
    """

    slope: Tensor
    offset: Tensor
    largest: float

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """See `Prover.lower`."""
        slope, offset = self.slope.to(region.x.device), self.offset.to(region.x.device)
        outputs = region.x.double().flatten(1) @ slope.flatten(1).T + offset
        low, high = (side.double().expand(region.x.shape).flatten(1) for side in region.bounds)
        slack = _ROUNDING * self.largest * (1 + low.abs().maximum(high.abs()).sum(1))
        least = torch.full_like(slack, torch.inf)
        for other in range(len(offset)):
            gap = outputs.gather(1, y[:, None])[:, 0] - outputs[:, other]
            reach = region.ceiling(slope[other] - slope[y])
            bound = gap - reach - _RELATIVE * (gap.abs() + reach) - slack
            least = torch.where(y == other, least, least.minimum(bound))
        return least


@certifier(
    "linear",
    source="Goodfellow, Shlens & Szegedy 2015, section 4 (L∞, without the box)",
    cost="K supports; once K B",
    says="exact for networks without hidden units; others are refused",
)
def linear() -> Method:
    """The exact worst margin of a network that is one affine map, for every budget."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> AffineMargin:
    return _map(graph_of(model, shape))


def _map(graph: Graph) -> AffineMargin:
    """Return the map of a graph: b is its answer at 0, the rows of W are unit vectors pulled back to the input."""
    last = len(graph.steps) - 1
    values: list[Any] = [torch.zeros(1, *graph.steps[0].shape, dtype=torch.float64)]
    maps = [affine_of(graph, at) for at in range(1, last + 1)]
    for step, each in zip(graph.steps[1:], maps, strict=True):
        if each is None:
            raise NoCertificateError(
                f"{step.op.removeprefix('aten.')} ({step.name}) is no affine map, and `linear` is for networks that "
                "are one: choose another of `steepest list certifiers`."
            )
        values.append(each.value(*(values[source] for source in each.sources)))
    rows: dict[int, Tensor] = {last: torch.eye(graph.outputs, dtype=torch.float64)}
    largest = max(float(value.abs().max()) for value in values)
    for at in range(last, 0, -1):
        each, pulled = maps[at - 1], rows.pop(at, None)
        if each is None or pulled is None:
            continue
        for source, part in zip(each.sources, each.pull(pulled), strict=True):
            rows[source] = rows[source] + part if source in rows else part
        largest = max(largest, *(float(row.abs().max()) for row in rows.values()))
    slope = rows.get(0, torch.zeros(graph.outputs, *graph.steps[0].shape, dtype=torch.float64))
    return AffineMargin(slope=slope, offset=values[last][0], largest=largest)
