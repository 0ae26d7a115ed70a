"""The L∞ ball: every coordinate by at most ε."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import largest
from steepest.budgets import coordinatewise
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Linf:
    """The set {δ : |δᵢ| ≤ εᵢ for every coordinate i}, the budget of the Fast Gradient Sign Method.

    extreme(g) = ε·sign(g), support(g) = Σ εᵢ|gᵢ|, project = clamp; all exact, also cut by the box.

    Args:
        epsilon: in data units: a number, one per example [N], or one per feature.

    Raises:
        UsageError: ε is negative or not finite, or its shape does not fit the input.

    Source: Goodfellow, Shlens & Szegedy 2015, section 4.

    >>> Linf(0.1).extreme(torch.tensor([[3.0, -1.0, 0.0]]))
    tensor([[ 0.1000, -0.1000,  0.0000]])
    """

    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "Linf"))

    def __repr__(self) -> str:
        return f"Linf({eps.text(self.epsilon)})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        return replace(self, epsilon=eps.resolved(self.epsilon, shape, "Linf"))

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index)) if isinstance(self.epsilon, Tensor) else self

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
        """Return ε·sign(g)."""
        return g.sign().mul_(eps.per_coordinate(self.epsilon, g).to(g.dtype))

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return independent uniform coordinates: the uniform law, exactly."""
        return coordinatewise.sample(coordinatewise.cut(self.hull(like), limits), like, stream, step)

    def norm(self, delta: Tensor) -> Tensor:
        """Return max |δᵢ|."""
        return largest(delta).double()

    def gauge(self, delta: Tensor) -> Tensor:
        """Return max |δᵢ|/εᵢ."""
        if eps.per_feature(self.epsilon):
            wide = delta.double().abs()
            return self.norm(eps.ratio(wide, eps.per_coordinate(self.epsilon, delta).expand_as(wide)))
        # One ε for all features: division is monotone, so the largest ratio is the ratio of the largest.
        return eps.ratio(self.norm(delta), eps.per_example(self.epsilon, delta, "Linf"))

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε, ε)."""
        side = eps.per_coordinate(self.epsilon, like)
        return -side, side
