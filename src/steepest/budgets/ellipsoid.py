"""An ellipsoid: the budget of changes that are correlated, or costly in some directions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.rounding import towards
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat, inner
from steepest.budgets import coordinatewise
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.sampling import accepted
from steepest.budgets.splitting import Projection, farthest, nearest, shares, shrunk

_ATTEMPTS = 12
"""How often a point that its rounding carried outside is pulled back, twice as far each time."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ellipsoid:
    """The set {δ : δᵀMδ ≤ ε²}, M symmetric and positive definite; with the covariance Σ, M = Σ⁻¹ (Mahalanobis).

    extreme(g) = ε·M⁻¹g/√(gᵀM⁻¹g), support(g) = ε√(gᵀM⁻¹g), and the projection by the root of one equation in the
    eigenbasis of M: exact. Where the box cuts those answers there is no closed form: both are then iterated to
    `accuracy` (the share of the gain, or of the distance, that may be missing) and are always inside. M = I is L2.
    Points are exactly feasible: what rounding carries outside is pulled back.

    Args:
        epsilon: a number or one per example [N], in units in which M measures.
        matrix: M, [d, d], d the number of values of one example.

    Raises:
        UsageError: M is not square, symmetric, finite or positive definite, or does not fit; ε is not allowed.

    >>> Ellipsoid(1.0, torch.diag(torch.tensor([1.0, 4.0]))).support(torch.tensor([[3.0, 8.0]]))
    tensor([5.], dtype=torch.float64)
    """

    epsilon: float | Tensor
    matrix: Tensor
    spectrum: tuple[Tensor, Tensor] | None = None
    convex: ClassVar[bool] = True
    separable: ClassVar[bool] = False
    monotone: ClassVar[bool] = False
    accuracy: ClassVar[float] = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "Ellipsoid"))
        if self.spectrum is None:
            matrix = torch.as_tensor(self.matrix).double()
            object.__setattr__(self, "matrix", matrix)
            object.__setattr__(self, "spectrum", _spectrum(matrix))

    def __repr__(self) -> str:
        return f"Ellipsoid({eps.text(self.epsilon)}, {'×'.join(map(str, self.matrix.shape))})"

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        size = torch.Size(shape[1:]).numel()
        if self.matrix.shape[0] != size:
            raise UsageError(
                f"Ellipsoid: M of shape {tuple(self.matrix.shape)} does not fit examples of shape {tuple(shape[1:])}: "
                f"give one row and one column per value, [{size}, {size}]."
            )
        fitted = replace(self, epsilon=eps.resolved(self.epsilon, shape, "Ellipsoid"))
        eps.per_example(fitted.epsilon, torch.empty(shape, device="meta"), "Ellipsoid")
        return fitted

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return replace(self, epsilon=eps.rows(self.epsilon, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """See `Budget.scaled`."""
        return replace(self, epsilon=eps.scaled(self.epsilon, factor))

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`; a coordinate without a gain of its own may move, so that others can move further."""
        wide = flat(g).double()
        return self._cut(g, limits, self._free_extreme(wide, self._radius(g)), pull=False)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def ceiling(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Iterated.ceiling`: ε√(gᵀM⁻¹g), or the sum over one part of g for that and one for the box."""
        wide, radius = flat(g).double(), self._radius(g)
        free = self._free_extreme(wide, radius)
        best = (wide * free).sum(1)
        if limits is None:
            return best
        low, high = (flat(side.expand(g.shape)).double() for side in limits)
        rest = ((free < low) | (free > high)).any(1).nonzero().squeeze(1)
        if not rest.numel():
            return best
        part, low, high, radius = wide[rest], low[rest], high[rest], radius[rest]
        ours, theirs = shares(*self._sides(low, high, radius), part, self._longest(low, high, radius))
        ours_most = (ours * self._free_extreme(ours, radius)).sum(1)
        met = (ours_most + coordinatewise.support((low, high), theirs)).minimum(
            coordinatewise.support((low, high), part)
        )
        return best.index_copy(0, rest, best[rest].minimum(met))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.project`."""
        return self._cut(delta, limits, self._onto(flat(delta).double(), self._radius(delta)), pull=True)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return ε·M⁻¹g/√(gᵀM⁻¹g)."""
        return self.extreme(g)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return points uniform in the ellipsoid: a uniform point of the unit ball, stretched by ε·M^(−1/2).

        Cut by limits, draws that leave them are drawn again, a few times; then they are clipped and scaled back
        inside, and more mass lies on the faces of the box.
        """
        axes, size = self._axes(like)
        radius = self._radius(like)[:, None]

        def draw(attempt: int) -> Tensor:
            normal = stream.split(attempt).normal(step, (axes.shape[0] + 2,))
            ball = normal[:, :-2] / normal.square().sum(1, keepdim=True).sqrt()
            return ((ball / size.sqrt()) @ axes.T * radius).reshape(like.shape)

        return accepted(draw, self.gauge, limits)

    def norm(self, delta: Tensor) -> Tensor:
        """Return √(δᵀMδ)."""
        wide = flat(delta).double()
        return ((wide @ self.matrix.to(wide.device)) * wide).sum(1).clamp_min(0).sqrt()

    def gauge(self, delta: Tensor) -> Tensor:
        """Return √(δᵀMδ)/ε."""
        return eps.ratio(self.norm(delta), self._radius(delta))

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """See `Settling.settled`: rounded towards x, and pulled back towards x as far as it takes."""
        point, share = towards(x, delta), torch.ones_like(self._radius(x))
        for attempt in range(_ATTEMPTS):
            gauge = self.gauge(point.double() - x.double())
            if not bool((gauge > 1).any()):
                break
            excess = (2.0**attempt) * (gauge - 1) + torch.finfo(torch.float64).eps
            share = torch.where(gauge > 1, share * (1 - excess).clamp_min(0), share)
            point = towards(x, delta * expand(share, delta))
        return point

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """Return the gauge: nothing need be forgiven."""
        return self.gauge(delta)

    def hull(self, like: Tensor) -> Limits:
        """Return ∓ε√((M⁻¹)ᵢᵢ)."""
        axes, size = self._axes(like)
        side = (axes.square() / size).sum(1).sqrt().reshape(1, *like.shape[1:])
        side = side * expand(self._radius(like), like)
        return -side, side

    def _radius(self, like: Tensor) -> Tensor:
        return eps.per_example(self.epsilon, like, "Ellipsoid")

    def _axes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the eigenvectors, one a column, and the eigenvalues of M."""
        assert self.spectrum is not None
        return self.spectrum[0].to(like.device), self.spectrum[1].to(like.device)

    def _free_extreme(self, g: Tensor, radius: Tensor) -> Tensor:
        axes, size = self._axes(g)
        top = g.abs().amax(1, keepdim=True) if g.shape[1] else g.sum(1, keepdim=True)
        turned = torch.where(top > 0, g / top, 0.0) @ axes
        length = (turned.square() / size).sum(1, keepdim=True).sqrt()
        unit = torch.where(length > 0, turned / size / length, 0.0)
        return (unit * radius[:, None]) @ axes.T

    def _onto(self, v: Tensor, radius: Tensor) -> Tensor:
        """Return the free projection of v [N, d]: vᵢ/(1 + λaᵢ) in the eigenbasis, λ by Newton on 1/‖δ‖_M.

        That function of λ is concave and rises, so that the iteration from 0 never passes the root.
        """
        axes, size = self._axes(v)
        turned = v @ axes
        price = torch.zeros_like(radius)
        for _ in range(100):
            weight = 1 + price[:, None] * size
            square = (size * (turned / weight).square()).sum(1)
            slope = (size.square() * turned.square() / weight**3).sum(1)
            length = square.sqrt()
            rise = torch.where(length > radius, (length / radius - 1) * square / slope, 0.0)
            rise = torch.where(rise.isfinite(), rise, 0.0)
            if not bool((rise > 1e-15 * price).any()):
                break
            price = price + rise
        held = (turned / (1 + price[:, None] * size)) @ axes.T
        inside = self._length(v) <= radius
        return torch.where((inside | (radius == 0))[:, None], torch.where(inside[:, None], v, 0.0), held)

    def _length(self, v: Tensor) -> Tensor:
        return ((v @ self.matrix.to(v.device)) * v).sum(1).clamp_min(0).sqrt()

    def _cut(self, v: Tensor, limits: Limits | None, free: Tensor, *, pull: bool) -> Tensor:
        """Return the free answer where it obeys the limits, else the iterated one."""
        best = free.reshape(v.shape)
        if limits is not None:
            low, high = (flat(side.expand(v.shape)).double() for side in limits)
            outside = ((free < low) | (free > high)).any(1).nonzero().squeeze(1)
            if outside.numel():
                low, high, radius = low[outside], high[outside], self._radius(v)[outside]
                solve, longest = nearest if pull else farthest, self._longest(low, high, radius)
                _, found = solve(*self._sides(low, high, radius), flat(v).double()[outside], longest)
                best = free.index_copy(0, outside, found).reshape(v.shape)
        return shrunk(best, self.gauge(best)).to(v.dtype)

    def _sides(self, low: Tensor, high: Tensor, radius: Tensor) -> tuple[Projection, Projection]:
        return lambda p: self._onto(p, radius), lambda p: p.clamp(low, high)

    def _longest(self, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
        corner = torch.maximum(-low, high).square().sum(1).sqrt()
        return (radius / self._axes(low)[1].min().sqrt()).minimum(corner)


def _spectrum(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvectors and eigenvalues of M, which is refused if it is no inner product."""
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not square or not bool(torch.isfinite(matrix).all()) or not torch.allclose(matrix, matrix.T, rtol=1e-9):
        raise UsageError(
            f"Ellipsoid: M of shape {tuple(matrix.shape)} is not a finite symmetric matrix [d, d]; "
            "(M + M.T) / 2 makes a square one symmetric."
        )
    size, axes = torch.linalg.eigh(matrix)
    if size.numel() and not float(size[0]) > 1e-13 * float(size[-1]):
        raise UsageError(
            f"Ellipsoid: M has the eigenvalue {float(size[0]):.3g}; all must be positive, or some direction would have "
            "no limit. Add a small multiple of the unit matrix."
        )
    return axes, size
