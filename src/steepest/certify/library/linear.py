"""The exact margin of a network that is one affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.budgets.region import Region
from steepest.certify.affine import Affine, affine
from steepest.certify.catalogue import Method, certifier
from steepest.models.model import Model
from steepest.models.traced import traced

_RELATIVE, _ROUNDING = 1e-9, 1e-13
"""How far a bound is moved outwards: a share of its parts, and of what was rounded on the way to them."""


@final
@dataclass(frozen=True, slots=True)
class AffineMargin:
    """min over the region of z_y − z_k = (w_y − w_k)·x + b_y − b_k − support(w_k − w_y), the least over k."""

    map: Affine

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """See `Prover.lower`."""
        slope, offset = self.map.slope.to(region.x.device), self.map.offset.to(region.x.device)
        outputs = region.x.double().flatten(1) @ slope.flatten(1).T + offset
        low, high = (side.double().expand(region.x.shape).flatten(1) for side in region.bounds)
        slack = _ROUNDING * self.map.largest * (1 + low.abs().maximum(high.abs()).sum(1))
        least = torch.full_like(slack, torch.inf)
        for other in range(len(offset)):
            gap = outputs.gather(1, y[:, None])[:, 0] - outputs[:, other]
            reach = region.support(slope[other] - slope[y])
            bound = gap - reach - _RELATIVE * (gap.abs() + reach) - slack
            least = torch.where(y == other, least, least.minimum(bound))
        return least


@certifier(
    "linear",
    source="Goodfellow, Shlens & Szegedy 2015, section 4 (L∞, without the box)",
    cost="K supports; once d F",
    says="exact for networks without hidden units; others are refused",
)
def linear() -> Method:
    """The exact worst margin of a network that is one affine map, for every budget."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> AffineMargin:
    parameter = next(iter(getattr(model.network, "parameters", list)()), torch.empty(0))
    return AffineMargin(affine(traced(model, shape).without_softmax(), parameter.device))
