"""Functions of one number between their bounds: their range, and straight lines below and above them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from steepest.models.traced import Step

OUTWARD = 1e-10
"""So much of their size, plus 1, bounds are moved outwards: float64 sums round by far less."""

_CELLS = 48
"""An interval is cut into so many cells where a bent function is compared with a line."""

Slope = Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Straight lines around a function: below·z + low ≤ f(z) ≤ above·z + high between its bounds, float64."""

    below: Tensor
    low: Tensor
    above: Tensor
    high: Tensor


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A function of one number, and what its bounds need.

    Attributes:
        value: f.
        slope: a derivative of f; at a kink, one of its sides.
        kinks: where pieces of f meet.
        turns: where f may have its largest or smallest value inside an interval, besides the kinks.
        bend: at most so large is |f''| between kinks; 0: f consists of straight pieces.
        convex: f lies above its tangents.
        slopes: the range of f'.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()
    turns: tuple[float, ...] = ()
    bend: float = 0.0
    convex: bool = False
    slopes: tuple[float, float] = (0.0, 1.0)

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return (min, max) of f over [low, high]."""
        ends = self.value(low), self.value(high)
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        for place in (*self.kinks, *self.turns):
            here = self.value(torch.full_like(low, place).maximum(low).minimum(high))
            least, most = least.minimum(here), most.maximum(here)
        return outwards(least, most)

    def straight(self, low: Tensor, high: Tensor) -> Tensor:
        """Return where f is a straight line between the bounds, so that one pair of lines is exact."""
        if self.bend:
            return low == high
        bent = torch.zeros_like(low, dtype=torch.bool)
        for kink in self.kinks:
            bent |= (low < kink) & (kink < high)
        return ~bent

    def chosen(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slopes (below, above) of good lines; any others give lines that hold as well."""
        width = high - low
        middle = (low + high) / 2
        chord = torch.where(
            width > 1e-9, (self.value(high) - self.value(low)) / width.clamp_min(1e-9), self.slope(middle)
        )
        return (self.slope(middle) if self.convex else chord), chord

    def lines(self, low: Tensor, high: Tensor, below: Slope = None, above: Slope = None) -> Lines:
        """Return the closest lines of these slopes, or of the chosen ones."""
        if below is None or above is None:
            lower, upper = self.chosen(low, high)
            below, above = lower if below is None else below, upper if above is None else above
        least, _ = self._residual(below, low, high)
        _, most = self._residual(above, low, high)
        return Lines(below=below, low=least, above=above, high=most)

    def _residual(self, slope: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return (min, max) of f(z) − slope·z over [low, high], moved outwards."""
        least = most = self.value(low) - slope * low
        slack: Tensor | float = 0.0
        if self.bend:
            cell = (high - low) / _CELLS
            places = [low + cell * k for k in range(1, _CELLS)]
            # Between two places the difference to their chord is at most bend · cell²/8.
            slack = self.bend / 8 * cell * cell
        else:
            places = []
        places += [torch.full_like(low, kink).maximum(low).minimum(high) for kink in self.kinks]
        for place in (*places, high):
            here = self.value(place) - slope * place
            least, most = torch.minimum(least, here), torch.maximum(most, here)
        return outwards(least - slack, most + slack) if self.bend else (least, most)


def outwards(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds moved apart by more than what rounding can have done to them."""
    return low - OUTWARD * (1 + low.abs()), high + OUTWARD * (1 + high.abs())


def _gelu(z: Tensor) -> Tensor:
    return torch.nn.functional.gelu(z)


def _gelu_slope(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gelu_tanh(z: Tensor) -> Tensor:
    return torch.nn.functional.gelu(z, approximate="tanh")


def _silu_slope(z: Tensor) -> Tensor:
    share = torch.sigmoid(z)
    return share * (1 + z * (1 - share))


def _leaky(share: float) -> Curve:
    return Curve(
        value=lambda z: torch.where(z > 0, z, share * z),
        slope=lambda z: torch.where(z > 0, 1.0, share).to(z.dtype),
        kinks=(0.0,),
        convex=share <= 1,
        slopes=(min(share, 1.0), max(share, 1.0)),
    )


def _clamped(low: float, high: float) -> Curve:
    return Curve(
        value=lambda z: z.clamp(low, high),
        slope=lambda z: ((z > low) & (z < high)).to(z.dtype),
        kinks=tuple(end for end in (low, high) if math.isfinite(end)),
        convex=high == math.inf,
    )


_RELU = Curve(value=torch.relu, slope=lambda z: (z > 0).to(z.dtype), kinks=(0.0,), convex=True)
_TANH = Curve(value=torch.tanh, slope=lambda z: 1 - torch.tanh(z) ** 2, bend=0.7699)
_SIGMOID = Curve(
    value=torch.sigmoid, slope=lambda z: torch.sigmoid(z) * torch.sigmoid(-z), bend=0.0963, slopes=(0.0, 0.25)
)
_GELU = Curve(value=_gelu, slope=_gelu_slope, turns=(-0.7517915246935645,), bend=0.7979, slopes=(-0.12905, 1.12905))
_SILU = Curve(
    value=torch.nn.functional.silu,
    slope=_silu_slope,
    turns=(-1.2784645427610738,),
    bend=0.5001,
    slopes=(-0.0999, 1.0999),
)
_ABS = Curve(value=torch.abs, slope=torch.sign, kinks=(0.0,), convex=True, slopes=(-1.0, 1.0))
# The polynomial inside the tanh changes second derivatives by less than the round number allows.
_GELU_TANH = Curve(
    value=_gelu_tanh, slope=_gelu_slope, turns=(-0.7524614220710162,), bend=0.83, slopes=(-0.1295, 1.1295)
)


def _softplus(given: dict[str, Any]) -> Curve | None:
    beta, threshold = float(given.get("beta", 1)), float(given.get("threshold", 20))
    if beta != 1 or threshold != 20:
        return None
    # Beyond 20 torch answers z itself, which no float32 tells from log(1 + exp z).
    return Curve(
        value=lambda z: torch.nn.functional.softplus(z, threshold=700), slope=torch.sigmoid, bend=0.2501, convex=True
    )


def _elu(given: dict[str, Any]) -> Curve | None:
    alpha, scale, inner = (float(given.get(name, 1)) for name in ("alpha", "scale", "input_scale"))
    if scale != 1 or inner != 1 or alpha != 1:
        return None
    return Curve(
        value=torch.nn.functional.elu, slope=lambda z: z.clamp_max(0).exp(), kinks=(0.0,), bend=1.0001, convex=True
    )


def curve_of(step: Step) -> Curve | None:
    """Return the function that a step applies to every number of its one source, or None if it has no rule."""
    given, name = step.given, step.op.removeprefix("aten.")
    if len(step.sources) != 1:
        return None
    if name == "gelu":
        return _GELU if given.get("approximate", "none") == "none" else _GELU_TANH
    if name == "leaky_relu":
        return _leaky(float(given["negative_slope"]))
    if name in ("hardtanh", "clamp"):
        low, high = (given.get(key) for key in (("min_val", "max_val") if name == "hardtanh" else ("min", "max")))
        if any(isinstance(end, Tensor) for end in (low, high)):
            return None
        return _clamped(-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if name in ("clamp_min", "clamp_max"):
        end = given["min"] if name == "clamp_min" else given["max"]
        if isinstance(end, Tensor):
            return None
        return _clamped(float(end), math.inf) if name == "clamp_min" else _clamped(-math.inf, float(end))
    if name == "softplus":
        return _softplus(given)
    if name == "elu":
        return _elu(given)
    return {"relu": _RELU, "tanh": _TANH, "sigmoid": _SIGMOID, "silu": _SILU, "abs": _ABS}.get(name)
