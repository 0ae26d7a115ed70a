"""How far the loss is from its linear model over the whole region, and what FGSM gets of what it was promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import expand, inner
from steepest.landscape.terrain import Terrain, gradient_of


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearity:
    """The local linearity of the objective around x; all but the point float64 [N], NaN where an answer is not finite.

    Attributes:
        gamma: the largest |L(p) − L(x) − ⟨g, p − x⟩| that was found in the region: a lower bound of the maximum.
        relative: gamma over the largest first-order gain, γ / max ⟨g, p − x⟩; ∞ where the gradient promises nothing.
        worst: the point where it was found, [N, *features].
        predicted: ⟨g, p − x⟩ at FGSM's point, the largest first-order gain.
        gained: L(p) − L(x) at FGSM's point.
    """

    gamma: Tensor
    relative: Tensor
    worst: Tensor
    predicted: Tensor
    gained: Tensor


def linearity(terrain: Terrain, *, steps: int = 10) -> Linearity:
    """Return the local linearity measure γ = max over p in the region of |L(p) − L(x) − ⟨∇L(x), p − x⟩|, and its point.

    The maximum is searched by `steps` steps of projected ascent from a random corner, of sizes 1, 1 − 1/steps, …
    budgets; the point of FGSM counts too, and the best point met is kept. The objective's ascent must be its value up
    to a constant. Asks steps + 3 forwards and steps + 1 backwards.

    Source: Qin et al. 2019, equation 5.

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    >>> ground = Terrain.around(st.Model(lambda p: torch.stack([-p[:, 0] ** 2, 0 * p[:, 0]], 1)), x, y, st.Linf(0.25))
    >>> found = linearity(ground)                  # L = p², so L(p) − L(x) − 2x(p − x) = (p − x)²
    >>> float(found.gamma), float(found.predicted), float(found.gained)
    (0.0625, 0.25, 0.3125)
    """
    region, x = terrain.region, terrain.x
    start = terrain.gradient(x)
    slope, base = gradient_of(start), start.value.double()
    finite = start.finite

    def remainder(value: Tensor, point: Tensor) -> Tensor:
        return value.double() - base - inner(slope, point.double() - x.double())

    ahead = region.extreme(slope)
    fast = terrain.value(ahead)
    finite, gamma, worst = finite & fast.finite, remainder(fast.value, ahead).abs(), ahead
    point = region.corner(terrain.stream.split(1), 0)
    for step in range(steps + 1):
        found = terrain.gradient(point) if step < steps else terrain.value(point)
        signed = remainder(found.value, point)
        finite, better = finite & found.finite, signed.abs() > gamma
        gamma = torch.where(better, signed.abs(), gamma)
        worst = torch.where(expand(better, point), point, worst)
        if step < steps:
            side = torch.where(signed < 0, -1.0, 1.0).to(slope.dtype)
            point = region.ascend(point, expand(side, slope) * (gradient_of(found) - slope), 1 - step / steps)
    gamma = gamma.masked_fill(~finite, torch.nan)
    support = region.support(slope)
    return Linearity(
        gamma=gamma,
        relative=torch.where(gamma == 0, 0.0, gamma / support),
        worst=worst,
        predicted=inner(slope, ahead.double() - x.double()).masked_fill(~finite, torch.nan),
        gained=(fast.value.double() - base).masked_fill(~finite, torch.nan),
    )
