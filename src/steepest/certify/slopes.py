"""Slopes of relaxations, and multipliers of splits, fitted so that a lower bound rises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.certify.curves import Curve
from steepest.certify.linear import Bounds
from steepest.certify.network import Between, Elementwise, Relaxed

RATE, DECAY = 0.5, 0.98
"""Of Adam's steps; slopes lie between 0 and 1 or not far from it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The best lower bounds met, and what gave the last ones.

    Attributes:
        value: the best bound of each row, [M].
        met: by bent step, the rows' coefficients at its answer in the last pass.
        at_input: the linear function of the input in the last pass, [M, *features].
    """

    value: Tensor
    met: dict[int, Tensor]
    at_input: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Free:
    """The free slopes of one bent step; every row of a bound has its own."""

    curve: Curve
    low: Tensor
    high: Tensor
    below: Tensor
    above: Tensor
    free: tuple[Tensor, ...]

    @classmethod
    def of(cls, curve: Curve, low: Tensor, high: Tensor) -> _Free:
        below, above = (slope.clone() for slope in curve.chosen(low, high))
        # Above a convex function nothing is closer than the chord.
        free = (below,) if curve.convex else (below, above)
        for slope in free:
            slope.requires_grad_()
        return cls(curve=curve, low=low, high=high, below=below, above=above, free=free)

    def relaxed(self) -> Relaxed:
        return Between(self.curve.lines(self.low, self.high, self.below, self.above), by_row=True)

    def settle(self) -> None:
        for slope in self.free:
            slope.clamp_(*self.curve.slopes)


def fitted(
    bounds: Bounds, a: Tensor, owner: Tensor, at: int, *, steps: int, splits: Mapping[int, Tensor] | None = None
) -> Fitted:
    """Return lower bounds of ⟨a, value of step `at`⟩ with slopes of each row's own, after so many ascents by Adam.

    Every slope gives a bound that holds, so the best one met is returned; it is never below the one without ascents.
    Rows whose bound is above 0 are let go.

    Args:
        splits: by the source of a bent step, +1 where its value is at least 0, −1 where at most 0, 0 where nothing is
            demanded, [M, *shape]; minima are taken where that holds, by multipliers β ≥ 0 (Wang et al. 2021).
    """
    slopes = {
        number: _Free.of(bent.curve, *(end[owner] for end in bounds.ranges[bounds.network.source(number)]))
        for number, bent in bounds.network.bent.items()
        if isinstance(bent, Elementwise) and number < at
    }
    betas = {source: torch.zeros_like(sign).requires_grad_() for source, sign in (splits or {}).items() if sign.any()}
    free = [slope for part in slopes.values() for slope in part.free] + list(betas.values())
    best = torch.full((len(a),), -torch.inf, dtype=torch.float64)
    optimiser = torch.optim.Adam(free, lr=RATE) if free else None
    for number in range(steps + 1):
        last = number == steps or optimiser is None
        with torch.set_grad_enabled(not last):
            relaxed = {at: part.relaxed() for at, part in slopes.items()}
            extra = {source: -beta * (splits or {})[source] for source, beta in betas.items()}
            found = bounds.lower(a, owner, at, relaxed, extra, keep=True)
            lost = -found.value[best <= 0].sum()
        best = best.maximum(found.value.detach())
        if last or bool((best > 0).all()):
            break
        assert optimiser is not None
        _descend(optimiser, free, lost, RATE * DECAY**number)
        with torch.no_grad():
            for part in slopes.values():
                part.settle()
            for beta in betas.values():
                beta.clamp_(min=0)
    met = {number: row.detach() for number, row in found.met.items()}
    return Fitted(value=best, met=met, at_input=found.at_input.detach())


def _descend(optimiser: torch.optim.Adam, free: list[Tensor], lost: Tensor, rate: float) -> None:
    found = torch.autograd.grad(lost, free, allow_unused=True)
    for slope, gradient in zip(free, found, strict=True):
        slope.grad = gradient
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
