"""Limits per feature: intervals of different lengths, one-sided ones, frozen features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import fits, flat
from steepest.budgets import coordinatewise
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Weighted:
    """The set {δ : −ε·downᵢ ≤ δᵢ ≤ ε·upᵢ}: each feature has limits of its own.

    A weight of 0 freezes a feature; `down = 0` lets it only grow (a monotone feature). extreme picks the corner,
    support(g) = ε Σ max(gᵢ·upᵢ, −gᵢ·downᵢ); both exact, also cut by the box.

    Args:
        epsilon: a number or one per example [N], in data units where the weight is 1.
        up: weights ≥ 0 that broadcast against one example.
        down: likewise; the same as `up` if left out.

    Raises:
        UsageError: a weight is negative or not finite, or its shape does not fit the input.

    >>> Weighted(0.1, up=torch.tensor([1.0, 2.0, 0.0])).extreme(torch.tensor([[1.0, -1.0, 1.0]]))
    tensor([[ 0.1000, -0.2000,  0.0000]])
    """

    epsilon: float | Tensor
    up: Tensor
    down: Tensor | None = None
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "Weighted"))
        for name, weight in (("up", self.up), ("down", self.down)):
            if weight is not None:
                object.__setattr__(self, name, _checked(torch.as_tensor(weight), name))

    def __repr__(self) -> str:
        return f"Weighted({eps.text(self.epsilon)}, up={eps.text(self.up)}" + (
            f", down={eps.text(self.down)})" if self.down is not None else ")"
        )

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        features = tuple(shape[1:])
        for name, weight in (("up", self.up), ("down", self.down)):
            if weight is not None and not fits(tuple(weight.shape), features):
                raise UsageError(
                    f"Weighted: {name} of shape {tuple(weight.shape)} does not fit examples of shape {features}. "
                    "Give one weight per feature (or a shape that broadcasts against one example)."
                )
        return replace(self, epsilon=eps.resolved(self.epsilon, shape, "Weighted"))

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return coordinatewise.extreme(coordinatewise.cut(self.hull(g), limits), g)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return coordinatewise.support(coordinatewise.cut(self.hull(g), limits), g)

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return coordinatewise.project(coordinatewise.cut(self.hull(delta), limits), delta)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return sign(g) times the wider side of each interval, so that a step can also come back from it.

        A step of the side that g points to would stay where that side is closed, wherever the point is.
        """
        low, high = self.hull(g)
        return g.sign() * torch.maximum(-low, high).to(g.dtype)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return independent uniform coordinates: the uniform law, exactly."""
        return coordinatewise.sample(coordinatewise.cut(self.hull(like), limits), like, stream, step)

    def norm(self, delta: Tensor) -> Tensor:
        """Return max over i of δᵢ/upᵢ or −δᵢ/downᵢ: the ε that would just hold δ."""
        up, down = self._weights(delta)
        wide = delta.double()
        size = torch.where(wide >= 0, eps.ratio(wide, up), eps.ratio(-wide, down))
        return flat(size).amax(1) if flat(size).shape[1] else flat(size).sum(1)

    def gauge(self, delta: Tensor) -> Tensor:
        """Return max over i of δᵢ/(ε·upᵢ) or −δᵢ/(ε·downᵢ)."""
        low, high = (side.expand_as(delta) for side in self.hull(delta))
        wide = delta.double()
        size = flat(torch.where(wide >= 0, eps.ratio(wide, high), eps.ratio(-wide, -low)))
        return size.amax(1) if size.shape[1] else size.sum(1)

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε·down, ε·up)."""
        up, down = self._weights(like)
        side = eps.per_coordinate(self.epsilon, like)
        return -side * down, side * up

    def _weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        up = self.up.to(like.device, torch.float64).expand(like.shape[1:])
        down = up if self.down is None else self.down.to(like.device, torch.float64).expand(like.shape[1:])
        return up, down


def _checked(weight: Tensor, name: str) -> Tensor:
    wide = weight.double()
    bad = wide[~(torch.isfinite(wide) & (wide >= 0))]
    if bad.numel():
        raise UsageError(
            f"Weighted: {name} holds {float(bad.flatten()[0])}; weights must be finite and at least 0 "
            "(0 freezes a feature; use up and down for one-sided limits)."
        )
    return weight
