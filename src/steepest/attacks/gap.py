"""How much a first-order search can still gain."""

from __future__ import annotations

from torch import Tensor

from steepest.basis.tensors import inner
from steepest.budgets.region import Region


def frank_wolfe_gap(region: Region, point: Tensor, gradient: Tensor) -> Tensor:
    """Return max over q in the region of ⟨∇, q − p⟩ = support(∇) − ⟨∇, p − x⟩, float64 [N], at least 0 up to rounding.

    Where the objective is concave on the region no point is better than p by more than this; elsewhere it is 0
    exactly at the points that no feasible first-order step improves.

    Source: Jaggi 2013; as a measure of an attack's convergence, Wang et al. 2019 (FOSC).

    >>> import torch
    >>> from steepest.basis.box import Box
    >>> from steepest.budgets.linf import Linf
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> frank_wolfe_gap(Region(Linf(0.5), Box.of(None), x), x, torch.tensor([[3.0, -1.0]]))
    tensor([2.], dtype=torch.float64)
    """
    return region.support(gradient) - inner(gradient, point.double() - region.x.double())
