"""Whether the gradients along a segment add up to the change of the loss between its ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import largest
from steepest.landscape.terrain import Terrain, between

_ROUNDINGS = 32
"""So many units in the last place of the largest output may a change consist of that is none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """What gradients along a segment add up to, beside the change of the loss between its ends; float64 [N].

    Attributes:
        off: |ΔL − mean ⟨∇L, d⟩|.
        whole: |ΔL| + mean |⟨∇L, d⟩|.
        noise: how much of `off` rounding may be: 32 units in the last place of the largest output.
    """

    off: Tensor
    whole: Tensor
    noise: Tensor

    @property
    def residual(self) -> Tensor:
        """off/whole, and 0 where rounding explains it."""
        return torch.where(self.off <= self.noise, 0.0, self.off / self.whole)


def segment_residual(terrain: Terrain, end: Tensor, *, points: int = 32) -> Tensor:
    """Return how far the fundamental theorem of calculus fails from x to `end` [N, *features], float64 [N] in [0, 1].

    With d = end − x and the midpoints t_i = (i + ½)/n of n = `points` equal parts,

        residual = |ΔL − mean_i ⟨∇L(x + t_i·d), d⟩| / (|ΔL| + mean_i |⟨∇L(x + t_i·d), d⟩|).

    For every absolutely continuous objective with its own gradient (ReLU, max-pooling, batch-norm in evaluation) it
    falls to 0 as n grows; it stays where the loss jumps (quantised inputs, k-winners-take-all: 1 where gradients are
    zero) or where the backward pass is not the forward's (straight-through, wrong signs). It is 0 where nothing
    changes and all slopes are zero, and blind to flat ground: saturation shows in `gradient_statistics`.

    The objective's ascent must be its value up to a constant: `Margin`. Computed in float64 where the network has a
    twin there; a change that rounding explains counts as none. NaN where an output or gradient is not finite. Asks
    n + 2 forwards and n backwards (two more forwards to find the twin). The noise of a model that draws random
    numbers counts as jumps: ask its expectation (`st.expected`).

    Source: the check is ours; the theorem that it tests is Lebesgue's.

    >>> import steepest as st
    >>> x, y, end = torch.tensor([[0.5, 0.3]]), torch.tensor([0]), torch.tensor([[0.6, 0.4]])
    >>> smooth = Terrain.around(st.Model(lambda p: p**2), x, y, st.Linf(0.1))
    >>> bool(segment_residual(smooth, end) < 1e-6)
    True
    >>> steps = Terrain.around(st.Model(lambda p: p + torch.floor(4 * p) - p), x, y, st.Linf(0.1))
    >>> segment_residual(steps, torch.tensor([[0.4, 0.3]]))
    tensor([1.], dtype=torch.float64)
    """
    return along(terrain.precise(), end, points=points).residual


def along(terrain: Terrain, end: Tensor, *, points: int) -> Segment:
    """Return what `segment_residual` is made of, in the terrain's own precision."""
    shares = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    direction = end.double() - terrain.x.double()
    first, last = (terrain.value(point) for point in (terrain.x.double(), end.double()))
    change = last.value.double() - first.value.double()
    slopes = terrain.slopes(between(terrain.x, end, shares), direction)
    unit = torch.finfo(first.outputs.dtype).eps
    noise = _ROUNDINGS * unit * torch.maximum(largest(first.outputs), largest(last.outputs)).double()
    return Segment(off=(change - slopes.mean(1)).abs(), whole=change.abs() + slopes.abs().mean(1), noise=noise)
