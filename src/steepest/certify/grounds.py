"""Where inputs may lie, as bounds see it: intervals of the coordinates, and the least value of a linear function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, final

from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat
from steepest.budgets import coordinatewise
from steepest.budgets.region import Region


class Ground(Protocol):
    """A set of inputs for each of N examples, float64."""

    @property
    def low(self) -> Tensor:
        """The smallest value of each coordinate, [N, *features]."""

    @property
    def high(self) -> Tensor:
        """The largest value of each coordinate, [N, *features]."""

    @property
    def boxed(self) -> bool:
        """Whether the set is the whole product of these intervals."""

    def least(self, a: Tensor, owner: Tensor) -> Tensor:
        """Return min ⟨a, p⟩ over the set of example `owner` [M], for rows a [M, *features]; differentiable in a."""

    def rows(self, index: Tensor) -> Self:
        """Return the sets of the examples that `index` selects."""


def _corner(a: Tensor, low: Tensor, high: Tensor, owner: Tensor) -> Tensor:
    if len(low) > 1:
        low, high = low[owner], high[owner]
    return dot(a, (low + high) / 2) - dot(a.abs(), (high - low) / 2)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """The product of the intervals [low, high], each [N, *features]."""

    low: Tensor
    high: Tensor
    boxed: bool = True

    def least(self, a: Tensor, owner: Tensor) -> Tensor:
        """See `Ground.least`."""
        return _corner(a, self.low, self.high, owner)

    def rows(self, index: Tensor) -> Product:
        """See `Ground.rows`."""
        return Product(self.low[index], self.high[index])


def require_bounded(region: Region) -> None:
    """Refuse a region whose coordinates have no bounds: nothing is true of all of it.

    Raises:
        UsageError: names budget and box.
    """
    low, high = region.budget.hull(region.x)
    box = region.box.bounds(region.x)
    if bool((low.isinf() & box[0].isinf()).any()) or bool((high.isinf() & box[1].isinf()).any()):
        raise UsageError(
            f"{region.budget!r} bounds no value, and neither does the box {region.box!r}, so nothing can be "
            "proven. Give the model a box, e.g. st.Model(net, box=(0, 1)), or another budget."
        )


@final
class Around:
    """A region, with all real numbers that it holds; its support function is exact, or a little above for budgets whose
    maximiser is searched for.

    Raises:
        UsageError: neither the budget nor the box bounds a coordinate.
    """

    def __init__(self, region: Region) -> None:
        require_bounded(region)
        self.region = region
        x = region.x.double()
        low, high = coordinatewise.cut(region.budget.hull(region.x), region.limits())
        self.low, self.high = (x + low).expand_as(x), (x + high).expand_as(x)
        self.boxed = region.budget.separable

    def least(self, a: Tensor, owner: Tensor) -> Tensor:
        """See `Ground.least`."""
        if self.boxed:
            return _corner(a, self.low, self.high, owner)
        part = self.region.rows(owner)
        given = a.detach()
        value = flat(given * part.x.double()).sum(1) - part.ceiling(-given)
        if not a.requires_grad:
            return value
        # The derivative of a support function is the point where it is reached.
        return value + flat((a - given) * part.extreme(-given).double()).sum(1)

    def rows(self, index: Tensor) -> Around:
        """See `Ground.rows`."""
        made = object.__new__(Around)
        made.region, made.boxed = self.region.rows(index), self.boxed
        made.low, made.high = self.low[index], self.high[index]
        return made


def magnitude(a: Tensor, ground: Ground, owner: Tensor) -> Tensor:
    """Return Σ |aᵢ|·max |pᵢ|, [M]: what the rounding of ⟨a, p⟩ is measured by."""
    size = ground.low.abs().maximum(ground.high.abs())
    return dot(a.detach().abs(), size if len(size) == 1 else size[owner])


def dot(a: Tensor, part: Tensor) -> Tensor:
    """Return ⟨a, part⟩ for rows a [M, *shape] and one part for all rows or one for each, [M]."""
    if len(part) == 1:
        return flat(a) @ part.flatten()
    return (flat(a) * flat(part)).sum(1)
