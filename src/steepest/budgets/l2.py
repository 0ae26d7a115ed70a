"""The L2 ball: the Euclidean length of δ is at most ε."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import flat, inner
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.sampling import rotate, uniform_in_ball


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class L2:
    """The set {δ : ‖δ‖₂ ≤ ε}.

    Without limits extreme(g) = ε·g/‖g‖₂ and support(g) = ε‖g‖₂. Cut by the box, both the maximiser and the
    projection are points of the ray clip(t·v, low, high), t ≥ 0, found exactly; "rescale, then clip" is neither.

    Args:
        epsilon: in data units: a number or one per example [N].

    Raises:
        UsageError: ε is negative, not finite, or differs between features.

    Source: the ray is Rauber & Bethge 2020 (arXiv 2007.07677); here it also serves the projection.

    >>> L2(0.5).extreme(torch.tensor([[3.0, 4.0]]))
    tensor([[0.3000, 0.4000]])
    """

    epsilon: float | Tensor
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "L2"))

    def __repr__(self) -> str:
        return f"L2({eps.text(self.epsilon)})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "L2"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "L2")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        return self._on_ray(g, limits, longest=None)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`: the minimiser is clip(v/(1 + λ)), λ ≥ 0, by the Karush-Kuhn-Tucker conditions."""
        return self._on_ray(delta, limits, longest=1.0)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ε·g/‖g‖₂."""
        return self.extreme(g)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the ball: the first d of d + 2 coordinates of a uniform point on the sphere.

        Cut by limits, a draw that leaves them is replaced by the end of a Kac walk (see `sampling`).
        """
        count, size = like.shape[0], flat(like).shape[1]
        normal = stream.normal(step, (size + 2,))
        if limits is not None:
            low, high = (flat(side.expand(like.shape).double()) for side in limits)
            normal[:, :size] *= low != high
            normal[:, :size] = _folded(normal[:, :size], low, high)
        radius = eps.per_example(self.epsilon, like, "L2")[:, None]
        sphere = normal * (radius / normal.square().sum(1, keepdim=True).sqrt())
        draw = sphere[:, :size]
        if limits is not None:
            clipped = draw.clamp(low, high)
            rest = (radius.square() - clipped.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
            slack = sphere[:, size:] / sphere[:, size:].square().sum(1, keepdim=True).sqrt() * rest
            draw = uniform_in_ball(draw, (low, high), slack, rotate, stream, step)
        return draw.reshape(count, *like.shape[1:])

    def norm(self, delta: Tensor) -> Tensor:
        """Return ‖δ‖₂."""
        return flat(delta).double().square().sum(1).sqrt()

    def gauge(self, delta: Tensor) -> Tensor:
        """Return ‖δ‖₂/ε."""
        return eps.ratio(self.norm(delta), eps.per_example(self.epsilon, delta, "L2"))

    def hull(self, like: Tensor) -> Limits:
        """Return (−ε, ε)."""
        side = eps.per_coordinate(self.epsilon, like)
        return -side, side

    def _on_ray(self, v: Tensor, limits: Limits | None, longest: float | None) -> Tensor:
        """Return clip(t·v, limits) for the largest t (at most `longest`) at which its length is at most ε."""
        wide = flat(v).double()
        radius = eps.per_example(self.epsilon, v, "L2")
        # The direction alone matters: dividing by the largest entry keeps squares away from under- and overflow.
        top = wide.abs().amax(1, keepdim=True) if wide.shape[1] else wide.sum(1, keepdim=True)
        unit = torch.where(top > 0, wide / top, torch.zeros_like(wide))
        caps = _caps(unit, limits, v)
        t = _stretch(unit, caps, radius)[:, None]
        t = t if longest is None else t.minimum(longest * top)
        reached = torch.where(t.isinf(), unit.sign() * torch.where(unit != 0, caps, 0), t * unit)
        ray = torch.minimum(reached.abs(), caps) * unit.sign()
        return ray.reshape(v.shape).to(v.dtype)


def _caps(v: Tensor, limits: Limits | None, like: Tensor) -> Tensor:
    """Return how far each coordinate may go in the direction of v, [N, d]."""
    if limits is None:
        return torch.full_like(v, torch.inf)
    low, high = (flat(side.expand(like.shape)) for side in limits)
    return torch.where(v >= 0, high, -low).double()


def _stretch(v: Tensor, caps: Tensor, radius: Tensor) -> Tensor:
    """Return the t ≥ 0 with ‖min(t|v|, caps)‖₂ = radius, float64 [N]; ∞ where even the corner is inside.

    In s = t² the squared length is concave and piecewise linear, so Newton's iteration from below rises to the
    root without overshooting and ends after finitely many steps (at most one per coordinate, a handful in practice).
    """
    squares, cap_squares = v.square(), caps.square()
    target, total = radius.square(), squares.sum(1)
    s = torch.where(total > 0, target / total, torch.inf)
    for _ in range(v.shape[1] + 1):
        bound = s[:, None] * squares >= cap_squares
        held = torch.where(bound, cap_squares, 0).sum(1)
        rising = torch.where(bound, 0, squares).sum(1)
        better = torch.where(rising > 0, (target - held).clamp_min(0) / rising, torch.inf)
        better = torch.where(total > 0, better.maximum(s), torch.inf)
        if not bool((better > s * (1 + 1e-15)).any()):
            break
        s = better
    return s.sqrt()


def _folded(draw: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Reflect coordinates whose one side is closed; by symmetry of the ball the law stays uniform."""
    return torch.where(low == 0, draw.abs(), torch.where(high == 0, -draw.abs(), draw))
