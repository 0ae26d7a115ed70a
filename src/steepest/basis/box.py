"""The box: the values an input may take at all, in data units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.basis.errors import DataError, UsageError
from steepest.basis.rounding import inside
from steepest.basis.tensors import fits, number

Bound = float | Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """The set {x : lower ≤ x ≤ upper}, coordinate by coordinate, in data units.

    Each bound is a number, or a tensor that broadcasts against one example (per channel [C, 1, 1],
    per feature [d]). Infinite bounds are allowed.

    Raises:
        UsageError: a bound is NaN, or some lower bound exceeds its upper bound.

    >>> Box(0, 1).contains(torch.tensor([[0.5, 1.0], [0.0, 1.1]]))
    tensor([ True, False])
    """

    lower: Bound
    upper: Bound

    def __post_init__(self) -> None:
        lower, upper = self._as_double(self.lower), self._as_double(self.upper)
        if bool((lower > upper).any() | lower.isnan().any() | upper.isnan().any()):
            raise UsageError(
                f"box({self.lower}, {self.upper}) is empty: every lower bound must be at most its upper bound, "
                "none NaN. Give lower before upper, in data units, e.g. box=(0, 1)."
            )

    @staticmethod
    def of(value: Box | tuple[Bound, Bound] | None) -> Box:
        """Return `value` as a box; a pair becomes (lower, upper), None the whole space.

        >>> Box.of((0, 1)).upper
        1
        """
        if isinstance(value, Box):
            return value
        if value is None:
            return Box(-torch.inf, torch.inf)
        if len(value) != 2:
            raise UsageError(f"box={value!r} is not a pair: give (lower, upper), a Box, or None.")
        return Box(*value)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (lower, upper) in float64 on the device of `x`, broadcastable against it.

        Raises:
            UsageError: a per-feature bound does not fit the shape of an example.
        """
        return self._fitted(self.lower, x), self._fitted(self.upper, x)

    def side(self, x: Tensor) -> Tensor:
        """Return the widest finite side, a number in float64; 1 if there is none.

        Published step sizes are for inputs in [0, 1]: times the side they serve inputs in every unit.

        >>> Box(0, 255).side(torch.zeros(1, 3)), Box.of(None).side(torch.zeros(1, 3))
        (tensor(255., dtype=torch.float64), tensor(1., dtype=torch.float64))
        """
        lower, upper = self.bounds(x)
        sides = (upper - lower).nan_to_num(posinf=0.0)
        widest = sides.amax() if sides.numel() else sides.sum()
        return torch.where(widest > 0, widest, 1.0)

    def contains(self, x: Tensor) -> Tensor:
        """Return [N]: whether every coordinate lies inside, decided in float64; NaN lies outside."""
        if self._two_numbers() and x.shape[1:].numel() and x.ndim > 1:
            # The extremes of a row decide for all of it, and NaN is the extreme of a row that holds one.
            rows = x.flatten(1)
            return (rows.amin(1).double() >= self.lower) & (rows.amax(1).double() <= self.upper)
        lower, upper = self.bounds(x)
        wide = x.double()
        return (
            ((wide >= lower) & (wide <= upper)).flatten(1).all(1) if x.ndim > 1 else (wide >= lower) & (wide <= upper)
        )

    def admit(self, x: Tensor, what: str = "the input") -> Tensor:
        """Return `x`, every example of which lies inside; a value off a bound by its own rounding is put on it.

        (In float32 the number 0.3 lies above 0.3.)

        Raises:
            DataError: names the range found, the box, how many examples leave it, and the usual causes.
        """
        if self._obviously_inside(x):
            return x
        lower, upper = self.bounds(x)
        rounded_off = (x >= lower.to(x.dtype)) & (x <= upper.to(x.dtype))
        if bool(rounded_off.all()):
            return torch.clamp(x, inside(lower, x, upper=False), inside(upper, x, upper=True))
        outside = ~rounded_off.flatten(1).all(1) if x.ndim > 1 else ~rounded_off
        bad = x[outside].double()
        place = f"in {int(outside.sum())} example(s) (first: position {int(outside.nonzero()[0])})"
        if bool(bad.isnan().any()):
            raise DataError(
                f"{what} has NaN {place}; only finite values inside the box are allowed. Remove or impute those."
            )
        raise DataError(
            f"{what} leaves the box [{_brief(self.lower)}, {_brief(self.upper)}] {place}; range found: "
            f"{float(bad.min()):.9g} to {float(bad.max()):.9g}. {self._likely(bad)}"
        )

    def _likely(self, bad: Tensor) -> str:
        """What a range outside [0, 1] usually means."""
        low, high = float(bad.min()), float(bad.max())
        if self._two_numbers() and self.lower == 0 and self.upper == 1:
            if low >= 0 and 2 < high <= 255:
                return "Values up to 255 suggest unscaled images: divide by 255 (uint8 files are scaled for you)."
            if low < 0:
                return (
                    "Negative values suggest normalised images (pass raw images and give mean and std: --mean, --std) "
                    "or features without fixed limits (give their range: box=(low, high), --box low,high)."
                )
        return "Give the box that the data really has: box=(low, high), --box low,high."

    def _obviously_inside(self, x: Tensor) -> bool:
        """Decide the common case in one pass: two numbers as bounds, every value between them, no NaN."""
        if not self._two_numbers() or not x.numel():
            return not x.numel()
        least, most = (float(extreme) for extreme in x.detach().aminmax())
        return bool(self.lower <= least and most <= self.upper)

    def _two_numbers(self) -> bool:
        return not isinstance(self.lower, Tensor) and not isinstance(self.upper, Tensor)

    @staticmethod
    def _as_double(bound: Bound) -> Tensor:
        return torch.as_tensor(bound, dtype=torch.float64)  # not .double(): a number would pass through float32

    @staticmethod
    def _fitted(bound: Bound, x: Tensor) -> Tensor:
        if not isinstance(bound, Tensor):
            return number(bound, x)
        wide = bound.to(x.device, torch.float64)
        if not fits(tuple(wide.shape), tuple(x.shape[1:])):
            raise UsageError(
                f"a box bound of shape {tuple(wide.shape)} does not fit examples of shape {tuple(x.shape[1:])}: "
                "give a number, or a tensor that broadcasts against one example (per channel: [C, 1, 1])."
            )
        return wide

    def __repr__(self) -> str:
        return f"Box({_brief(self.lower)}, {_brief(self.upper)})"


def _brief(bound: Bound) -> str:
    if isinstance(bound, Tensor) and bound.numel() > 1:
        return f"<{'×'.join(map(str, bound.shape))} from {float(bound.min()):.6g} to {float(bound.max()):.6g}>"
    return f"{float(bound):.6g}"
