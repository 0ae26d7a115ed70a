"""What every set of allowed perturbations promises."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from steepest.basis.streams import Stream

Limits = tuple[Tensor, Tensor]
"""(low, high), float64, broadcastable against δ, low ≤ 0 ≤ high: how far each coordinate may move at all."""


class Budget(Protocol):
    """A set B of perturbations δ that contains 0, scaled by ε; δ and g have shape [N, *features].

    Every method works on rows independently, keeps shape, dtype and device, and accepts N = 0. `limits` cuts
    the set with the coordinate box low ≤ δ ≤ high; answers are exact for the cut set, not clipped afterwards.
    """

    @property
    def epsilon(self) -> float | Tensor:
        """ε in data units: a number, one per example, or (where the set allows it) one per feature."""

    @property
    def convex(self) -> bool:
        """Whether B is convex: then `project` is non-expansive and the Frank-Wolfe gap bounds what is missing."""

    @property
    def separable(self) -> bool:
        """Whether B is its own hull, a product of intervals: then the bounds alone say everything."""

    @property
    def monotone(self) -> bool:
        """Whether moving any coordinate of δ towards 0 stays inside: then rounding towards x cannot leave B.

        A set that is not monotone is also `Settling`.
        """

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """Return the budget for inputs of `shape` [N, *features], every ε resolved to that rank.

        Raises:
            UsageError: a tensor of the budget does not fit the shape.
        """

    def rows(self, index: Tensor) -> Self:
        """Return the fitted budget of the examples that `index` selects."""

    def scaled(self, factor: float | Tensor) -> Self:
        """Return factor · B; `factor` is a number or one per example [N]."""

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return argmax over δ in B of ⟨g, δ⟩; coordinates that cannot gain stay 0."""

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ⟨g, extreme(g)⟩, float64 [N]; without limits it is ε times the dual norm of g."""

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the point of B nearest to `delta` in the Euclidean norm."""

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return a step of gauge 1 along g for searches that step and project; `extreme` unless that is too sparse."""

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points drawn uniformly from B, float64, one per row of `like`."""

    def norm(self, delta: Tensor) -> Tensor:
        """Return the size that ε bounds, in data units, float64 [N]."""

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the size in units of the budget, float64 [N]: at most 1 exactly inside, infinite when ε = 0 < |δ|."""

    def hull(self, like: Tensor) -> Limits:
        """Return the smallest product of intervals that holds B, float64, broadcastable against `like`."""


def is_sparse(budget: Budget) -> bool:
    """Return whether `extreme` moves few coordinates: so says a set with a true attribute `sparse`; others say nothing.

    Searches that step and project then choose themselves how many coordinates one step moves.
    """
    return bool(getattr(budget, "sparse", False))


@runtime_checkable
class Iterated(Protocol):
    """What a set adds whose `extreme` comes from a search that ends near the maximum, so that `support` is below it."""

    def ceiling(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return a number that ⟨g, δ⟩ exceeds nowhere in the cut set, float64 [N]."""


def ceiling(budget: Budget, g: Tensor, limits: Limits | None = None) -> Tensor:
    """Return what ⟨g, δ⟩ exceeds nowhere in the cut set, float64 [N]: for proofs, which no search may fall short of."""
    return budget.ceiling(g, limits) if isinstance(budget, Iterated) else budget.support(g, limits)


@runtime_checkable
class Discrete(Protocol):
    """What a budget of whole changes adds: moves that rounding to the nearest allowed point cannot undo.

    `limits` are those of x here, not of the point, since the changes are counted from x.
    """

    def advance(self, delta: Tensor, g: Tensor, size: Tensor | float, limits: Limits | None = None) -> Tensor:
        """Return the point of B that a step of the share `size` (a number or [N]) of the budget reaches along g.

        It starts at `delta`, a point of B, and makes at least one whole change where one gains to first order.
        """

    def swaps(self, delta: Tensor, g: Tensor, first: Tensor, count: int, limits: Limits | None = None) -> Tensor:
        """Return [N, count, *features]: points of B with one feature of `delta` changed, the largest gain ⟨g, ·⟩ first.

        `first` [N] of them are passed over; where there are fewer, they begin again.
        """


class Settling(Budget, Protocol):
    """A set that rounding towards x may leave: it finds its own points in the precision of x."""

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return x + δ in the precision of x, inside the set as `gauge_within` judges; δ is inside, float64."""

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """Return the gauge, float64 [N], as if each coordinate could be moved by `ulp` [N, *features] for free.

        Only what no grid of numbers meets (a subspace, an equation) may be forgiven so; sizes are judged exactly.
        """
