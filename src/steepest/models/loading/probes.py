"""Random questions that a loader asks of a network before anybody trusts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from steepest.basis.box import Box
from steepest.basis.errors import ModelError, UsageError
from steepest.models.contract import Need
from steepest.models.goals import Never
from steepest.models.loading.adapt import Normalisation
from steepest.models.model import Model, Network


def probes(shape: tuple[int, ...], box: Box, normalisation: Normalisation | None, count: int = 4) -> Tensor:
    """Return `count` fixed pseudo-random inputs [count, *shape] inside the box, after normalisation, float32.

    Where a bound is infinite, an interval of length 1 or 2 stands for it. Bounds or normalisations given per
    channel of the data may not fit a flattened input; then their extremes or averages serve.
    """
    draw = torch.rand((count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        lower, upper = box.bounds(draw)
    except UsageError:
        lower, upper = (torch.as_tensor(bound).double() for bound in (box.lower, box.upper))
        lower, upper = lower.min(), upper.max()
    lower = torch.where(lower.isfinite(), lower, torch.where(upper.isfinite(), upper - 1, -1.0))
    upper = torch.where(upper.isfinite(), upper, lower + 2)
    x = lower + draw * (upper - lower)
    if normalisation:
        try:
            x = normalisation.applied(x)
        except UsageError:
            mean, std = (sum(values) / len(values) for values in (normalisation.mean, normalisation.std))
            x = (x - mean) / std
    return x.float()


def gradient_notes(network: Network, x: Tensor) -> tuple[str, ...]:
    """Return what a reader must know of the input gradient at `x`: missing, not finite or zero; nothing if well."""
    labels = torch.zeros(x.shape[0], dtype=torch.long)
    try:
        evaluation = Model(network, None).evaluate(x, labels, _Weighted(), need=Need.GRADIENT)
    except (ModelError, RuntimeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(":")[0]
        return (f"no gradient reaches the input ({reason}); only attacks without gradients (noise) can work",)
    if not bool(evaluation.finite.all()):
        return ("outputs or input gradients at random points are not finite",)
    if evaluation.size is not None and not bool((evaluation.size > 0).any()):
        return (
            "input gradients at random points are zero (a quantised graph has zero gradients by construction): "
            "gradient attacks will find nothing, which says nothing about robustness",
        )
    return ()


@final
@dataclass(frozen=True, slots=True)
class _Weighted:
    """Σₖ k·outputₖ: unlike the plain sum, its gradient does not vanish behind a softmax."""

    goal = Never()

    def ascent(self, outputs: Tensor, y: object) -> Tensor:
        return (outputs * torch.arange(1, outputs.shape[1] + 1).to(outputs)).sum(1)

    def value(self, outputs: Tensor, y: object) -> Tensor:
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        return self
