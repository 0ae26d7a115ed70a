"""Defences around a network that they leave as it is. Each is harmless at the parameter that its class names."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from tests.planted.zoo.data import CLASSES


class Around(nn.Module):
    """A wrapper that holds the network and one parameter."""

    def __init__(self, f: nn.Module, setting: Any) -> None:
        super().__init__()
        self.f = f
        self.setting = setting
        self.train(f.training)


class Quantised(Around):
    """Inputs rounded to so many levels; None: not rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x if self.setting is None else torch.round(x * self.setting) / self.setting)


class Detached(Around):
    """Cut off the graph; False: left on it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x.detach() if self.setting else x)


class Hard(Around):
    """The decision alone, as a one-hot vector; False: the logits."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.f(x)
        return one_hot(z.argmax(1), CLASSES).to(z.dtype) if self.setting else z


class Tempered(Around):
    """Logits times a factor, harmless up to 10."""

    def forward(self, x: Tensor) -> Tensor:
        return self.setting * self.f(x)


class Probabilities(Around):
    """softmax(factor · f); None: log-softmax, which are logits."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.f(x)
        return z.log_softmax(1) if self.setting is None else (self.setting * z).softmax(1)


class Noisy(Around):
    """Gaussian noise of so much standard deviation on the input, drawn anew each time; 0: none."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x + self.setting * torch.randn_like(x))


class Dropping(Around):
    """Dropout left on, so that inputs disappear with this probability; 0: none."""

    def __init__(self, f: nn.Module, setting: float) -> None:
        super().__init__(f, setting)
        self.drop = nn.Dropout(setting).train()

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.drop(x))


def _cosines(size: int) -> Tensor:
    at = (torch.arange(size) + 0.5) * math.pi / size
    rows = torch.cos(torch.arange(size)[:, None] * at) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


class Compressed(Around):
    """Rounded coefficients of the cosine transform, by blocks of 8×8, in steps of the setting; None: not rounded."""

    def forward(self, x: Tensor) -> Tensor:
        d = _cosines(8).to(x)
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
        found = d @ blocks @ d.T
        found = found if self.setting is None else torch.round(found / self.setting) * self.setting
        return self.f((d.T @ found @ d).transpose(3, 4).reshape(n, c, h, w))


class MedianFiltered(Around):
    """The median of windows of so many pixels in square; 1: none."""

    def forward(self, x: Tensor) -> Tensor:
        size = self.setting
        edge = size // 2
        wide = pad(x, (edge, edge, edge, edge), mode="replicate")
        windows = wide.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
        return self.f(windows.median(4).values)


class NoSlope(Around):
    """Adds 0·√((x − 2)₊ + floor): nothing at all, with a gradient 0·∞ for floor 0."""

    def forward(self, x: Tensor) -> Tensor:
        # As a product: torch.relu answers 0, not NaN, for the slope of an infinite slope.
        above = (x - 2) * (x > 2)
        return self.f(x) + 0 * torch.sqrt(above + self.setting).flatten(1).sum(1, keepdim=True)


def _phases(x: Tensor) -> Tensor:
    """Fixed angles, one for each input, without which all black pixels would sit on one side of the wave."""
    angles = torch.rand(x[0].numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2 * math.pi * angles).to(x).reshape(1, *x.shape[1:])


class Shattered(Around):
    """f(x + a·sin(w·x + φ)) with w = 20,000: the values barely move, the slopes are anything; a = 0: f."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x + self.setting * torch.sin(2e4 * x + _phases(x)))


class ShatteredLogit(Around):
    """Adds a·Σ sin(10⁶·x + φ) to the largest logit; a = 0: nothing."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.f(x)
        ripple = self.setting * torch.sin(1e6 * x + _phases(x)).flatten(1).sum(1, keepdim=True)
        return z + ripple * one_hot(z.argmax(1), CLASSES)


class HashGated(Around):
    """Adds one of seven fixed random vectors of so much deviation, chosen by a hash of the gray levels; 0: none."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.f(x)
        table = torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(0)).to(z)
        return z + self.setting * table[(x * 255).long().flatten(1).sum(1) % 7]


class _Slope(torch.autograd.Function):
    """The identity, with a backward that multiplies by a factor; None: that answers noise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | None) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.randn_like(gradient) if ctx.factor is None else ctx.factor * gradient, None


class WrongSlope(Around):
    """A custom backward at the input: its factor, right at 1; None: noise."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(_Slope.apply(x, self.setting))


class StraightThrough(Around):
    """Inputs rounded to so many levels, with the identity for a slope; harmless at 4,096."""

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x + (torch.round(x * self.setting) / self.setting - x).detach())


class Counting(Around):
    """Answers wrongly once it has seen so many examples; infinity: never."""

    def __init__(self, f: nn.Module, setting: float) -> None:
        super().__init__(f, setting)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        z = self.f(x)
        return z if self.seen <= self.setting else z.roll(1, 1)


class Rejecting(Around):
    """An eleventh class, "rejected", whose logit lies so far above the second best of the others; −10⁴: never wins."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.f(x)
        return torch.cat([z, z.topk(2, 1).values[:, 1:] + self.setting], 1)
