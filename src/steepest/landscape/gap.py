"""Whether a search is done: what a first-order step can still gain at its point."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.basis.tensors import inner
from steepest.landscape.terrain import Terrain, gradient_of


def frank_wolfe_gap(terrain: Terrain, point: Tensor) -> Tensor:
    """Return (σ − ⟨g, p − x⟩)/σ at p = `point` [N, *features], with g = ∇L(p) and σ = max over q of ⟨g, q − x⟩; [N].

    The maximum is over the whole region, box included. 0 where no feasible first-order step improves p (also where
    the gradient is zero), 1 at x, more where p lies on the wrong side; ∞ where p can gain by going back to x and x
    itself can gain nothing. On a concave objective σ times it bounds what is still to be won. Float64; NaN where the
    answer is not finite. One forward and one backward.

    Source: Jaggi 2013; as a criterion of convergence, Wang et al. 2019 (FOSC), here relative.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> ground = Terrain.around(st.Model(lambda p: 2 * p), x, y, st.Linf(0.25))
    >>> frank_wolfe_gap(ground, torch.tensor([[0.25, 0.75]])), frank_wolfe_gap(ground, x)
    (tensor([0.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    answer = terrain.gradient(point)
    g = gradient_of(answer)
    support = terrain.region.support(g)
    left = (support - inner(g, point.double() - terrain.x.double())).clamp_min(0)
    return torch.where(left == 0, 0.0, left / support).masked_fill(~answer.finite, torch.nan)
