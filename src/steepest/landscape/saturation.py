"""Which units are flat, so that no gradient passes, and how far the logits are apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from steepest.landscape.stretch import watched
from steepest.models.model import Model
from steepest.models.objectives import Margin


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSaturation:
    """One call of an activation.

    Attributes:
        name: of the module in its network.
        kind: the module's class in lower case: "relu" is flat for about half of its inputs in every honest network,
            "hardtanh" or "sigmoid" should be for few.
        share: of the units whose slope is exactly 0, for each example, float64 [N].
    """

    name: str
    kind: str
    share: Tensor


def saturation(model: Model, x: Tensor) -> tuple[LayerSaturation, ...]:
    """Return, for every activation module in the order of calls, the share of its units with slope exactly 0 at x.

    The slope is read off the unit's input by the activation's formula, in the precision of the input: ReLU is flat
    at z ≤ 0, Hardtanh outside its limits, Tanh where 1 − tanh² rounds to 0 (|z| above 9 in float32). Known: ReLU,
    ReLU6, Hardtanh, Hardsigmoid, Hardswish, Threshold, Hardshrink, Softshrink, ELU, CELU, SELU, Tanh, Sigmoid,
    Softplus, GELU, SiLU. Activations that are no modules, and those whose input has not the examples first, are not
    seen. One forward of the network itself, past the model's oracles; no hook stays.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Hardtanh(), torch.nn.ReLU())
    >>> [(s.kind, s.share.tolist()) for s in saturation(st.Model(net), torch.tensor([[5.0, -5.0, 0.5, 0.0]]))]
    [('hardtanh', [0.5]), ('relu', [0.5])]
    """
    found: list[LayerSaturation] = []

    def before(given: object) -> Tensor | None:
        fits = isinstance(given, Tensor) and given.shape[:1] == (len(x),) and given.is_floating_point()
        return given.detach().clone() if fits and isinstance(given, Tensor) else None

    def after(name: str, layer: nn.Module, given: Tensor | None, _: object) -> None:
        flat = _FLAT.get(type(layer))
        if flat is not None and given is not None:
            units = flat(layer, given).reshape(len(given), math.prod(given.shape[1:]))
            share = units.double().mean(1) if units.shape[1] else units.double().sum(1)
            found.append(LayerSaturation(name=name, kind=type(layer).__name__.lower(), share=share))

    with watched(model, before, after), model.borrowed(), torch.no_grad():
        model.passed(x)
    return tuple(found)


def logit_saturation(outputs: Tensor, y: Tensor) -> Tensor:
    """Return how far the label's logit is above the largest other, z_y − max z_k, float64 [N]; negative where wrong.

    The derivative of the cross-entropy in float32 is exactly 0 where it is large, whatever the network.

    >>> logit_saturation(torch.tensor([[20.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor([19., -3.], dtype=torch.float64)
    """
    return -Margin().value(outputs.double(), y)


def _beyond(low: Callable[[Any], float], high: Callable[[Any], float]) -> Callable[[Any, Tensor], Tensor]:
    return lambda layer, z: (z <= low(layer)) | (z >= high(layer))


def _gelu(layer: Any, z: Tensor) -> Tensor:
    if layer.approximate != "none":
        return torch.zeros_like(z).bool()
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    slope: Tensor = torch.special.ndtr(z) + z * density
    return slope == 0


def _silu(_: Any, z: Tensor) -> Tensor:
    share = torch.sigmoid(z)
    return share * (1 + z * (1 - share)) == 0


_FLAT: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.ReLU: lambda _, z: z <= 0,
    nn.ReLU6: _beyond(lambda _: 0.0, lambda _: 6.0),
    nn.Hardtanh: _beyond(lambda layer: layer.min_val, lambda layer: layer.max_val),
    nn.Hardsigmoid: _beyond(lambda _: -3.0, lambda _: 3.0),
    nn.Hardswish: lambda _, z: z <= -3,
    nn.Threshold: lambda layer, z: z <= layer.threshold,
    nn.Hardshrink: lambda layer, z: z.abs() <= layer.lambd,
    nn.Softshrink: lambda layer, z: z.abs() <= layer.lambd,
    nn.ELU: lambda layer, z: (z < 0) & (layer.alpha * z.exp() == 0),
    nn.CELU: lambda layer, z: (z < 0) & ((z / layer.alpha).exp() == 0),
    nn.SELU: lambda _, z: (z < 0) & (z.exp() == 0),
    nn.Tanh: lambda _, z: 1 - z.tanh().square() == 0,
    nn.Sigmoid: lambda _, z: z.sigmoid() * (1 - z.sigmoid()) == 0,
    nn.Softplus: lambda layer, z: (layer.beta * z).sigmoid() == 0,
    nn.GELU: _gelu,
    nn.SiLU: _silu,
}
"""Exact types, and where their slope is exactly 0."""
