"""Which units are flat, so that no gradient passes, and how far the logits are apart."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from steepest.landscape.stretch import watched
from steepest.landscape.terrain import gradient_of
from steepest.models.contract import Need
from steepest.models.model import Model
from steepest.models.objectives import Margin, output_itself


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

    The slope is what automatic differentiation gives for the activation alone at the unit's input, in its precision:
    0 for ReLU at z ≤ 0, for Hardtanh outside its limits, for Tanh where 1 − tanh² rounds to 0 (|z| above 9 in
    float32). Seen are torch's activations that act unit by unit; not those that are no modules, nor those whose input
    has not the examples first. One forward of the network itself, past the model's oracles; no hook stays.

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
        if type(layer) in _ACTIVATIONS and given is not None:
            units = _flat(layer, given).double()
            share = units.sum(1) / max(1, units.shape[1])
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


def _flat(layer: nn.Module, z: Tensor) -> Tensor:
    """Return bool [N, units]: where the slope of an activation that acts unit by unit is exactly 0."""
    alone = Model(lambda units: layer.forward(units.clone()), None)  # not through its hooks, and not in place
    answer = alone.evaluate(z.reshape(-1, 1), None, output_itself(), need=Need.GRADIENT)
    flat = (gradient_of(answer) == 0).squeeze(1) & answer.finite
    return flat.reshape(len(z), math.prod(z.shape[1:]))


_ACTIVATIONS: Set[type[nn.Module]] = {
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Threshold, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardtanh, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink,
    nn.Hardshrink, nn.Softshrink,
}  # fmt: skip
"""Exact types that act unit by unit; a class derived from one of these may do something else."""
