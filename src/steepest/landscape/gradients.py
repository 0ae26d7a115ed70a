"""Whether there is a gradient at all, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.basis.tensors import flat
from steepest.landscape.terrain import Terrain, gradient_of


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientStatistics:
    """The gradients at x under one objective.

    Attributes:
        size: max |gᵢ|, float64 [N]; NaN where there is no gradient.
        gain: max ⟨g, p − x⟩ over the region, the gain that a linear model promises, float64 [N]; NaN likewise.
        zero: bool [N], the gradient is exactly zero in every coordinate.
        finite: bool [N], outputs and gradient are neither NaN nor infinite.
        available: whether a gradient reached the input; otherwise nothing above was measured.
        reason: why not, "" if it did.
    """

    size: Tensor
    gain: Tensor
    zero: Tensor
    finite: Tensor
    available: bool = True
    reason: str = ""


def gradient_statistics(terrain: Terrain) -> GradientStatistics:
    """Return what the gradients at x are like: one forward and one backward.

    A model without gradients is an answer here, not an error.

    Raises:
        ModelError: the model does not answer its value either.

    Source: Carlini et al. 2019; exactly zero gradients as an indicator of failure: Pintor et al. 2022.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> found = gradient_statistics(Terrain.around(st.Model(lambda p: 2 * p), x, y, st.Linf(0.25)))
    >>> found.size, found.gain, found.zero   # of the objective 2·(p₂ − p₁)
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64), tensor([False]))
    >>> gradient_statistics(Terrain.around(st.Model(lambda p: p.detach()), x, y, st.Linf(0.25))).available
    False
    """
    try:
        answer = terrain.gradient(terrain.x)
    except ModelError as error:
        rows = terrain.value(terrain.x).value
        unknown, never = torch.full_like(rows, torch.nan, dtype=torch.float64), torch.zeros_like(rows).bool()
        return GradientStatistics(
            size=unknown, gain=unknown, zero=never, finite=never, available=False, reason=str(error)
        )
    assert answer.size is not None
    blank = ~answer.finite
    return GradientStatistics(
        size=answer.size.double().masked_fill(blank, torch.nan),
        gain=terrain.region.support(gradient_of(answer)).masked_fill(blank, torch.nan),
        zero=(answer.size == 0) & answer.finite,
        finite=answer.finite,
    )


def participation(gradient: Tensor) -> Tensor:
    """Return (‖g‖₁/‖g‖₂)²/d of each example, float64 [N] in (0, 1]: the share of coordinates that carry a gradient.

    k equal coordinates among d zeros give k/d, independent Gaussian ones about 2/π. NaN where g = 0.

    Source: Mehouachi & Jabari 2025.

    >>> participation(torch.tensor([[3.0, 0.0, -3.0, 0.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    rows = flat(gradient).double()
    ratio: Tensor = rows.abs().sum(1) / rows.norm(dim=1)
    return ratio.square() / rows.shape[1]
