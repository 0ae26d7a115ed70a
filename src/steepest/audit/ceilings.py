"""What a model's weights say of how far it can stretch a change, layer by layer, beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steepest.basis.errors import NoCertificateError
from steepest.certify.lipschitz import ceiling_of
from steepest.certify.stretching import StepBound
from steepest.models.model import Model

_FAMILIES: dict[str, tuple[str, ...]] = {
    "Linear": ("aten.addmm", "aten.mm"),
    "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d": ("aten.convolution",),
    "BatchNorm1d BatchNorm2d BatchNorm3d": (
        "aten.native_batch_norm",
        "aten._native_batch_norm_legit_no_training",
        "aten.cudnn_batch_norm",
    ),
    "AvgPool2d": ("aten.avg_pool2d",),
    "MaxPool2d": ("aten.max_pool2d_with_indices",),
    "ReLU": ("aten.relu",),
    "LeakyReLU": ("aten.leaky_relu",),
    "GELU": ("aten.gelu",),
    "SiLU": ("aten.silu",),
    "Tanh": ("aten.tanh",),
    "Sigmoid": ("aten.sigmoid",),
    "Hardtanh ReLU6": ("aten.hardtanh",),
    "ELU SELU": ("aten.elu",),
    "Softplus": ("aten.softplus",),
}
"""Kinds of modules, and the operations that a trace shows in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Lipschitz constants in L2 that a network cannot exceed anywhere; of probabilities, those of the logits behind.

    Attributes:
        product: the norms of its steps, multiplied along chains; None where an operation has no rule, for `reason`.
        eclipse: ECLipsE-Fast's, never above; None where it does not apply.
        reason: why there is no bound.
        amplifier: the step with the largest share of what amplifies; None where nothing does.
        loose: the steps that belong to no layer of the network, where they amplify.
    """

    product: float | None = None
    eclipse: float | None = None
    reason: str = ""
    amplifier: str | None = None
    loose: tuple[StepBound, ...] = ()


def ceilings(
    model: Model, shape: tuple[int, ...], layers: Sequence[tuple[str, str]]
) -> tuple[Ceilings, dict[int, StepBound]]:
    """Return the bounds of a model for examples of one shape, and the step of each layer that has one.

    A layer is known by the order of its kind: the third linear layer called is the third matrix product of the trace.
    Where their numbers differ (products outside of modules), the layers of that kind have none.

    Args:
        layers: (name, kind) of each call, in order.

    Returns:
        (the bounds, the place of a layer ↦ its step).
    """
    try:
        found = ceiling_of(model, shape)
    except NoCertificateError as error:
        return Ceilings(reason=str(error)), {}
    matched: dict[int, int] = {}
    for kinds, operations in _FAMILIES.items():
        calls = [at for at, (_, kind) in enumerate(layers) if kind in kinds.split()]
        steps = [at for at, step in enumerate(found.layers) if step.op in operations]
        if len(calls) == len(steps):
            matched |= dict(zip(calls, steps, strict=True))
    taken = set(matched.values())
    loose = tuple(step for at, step in enumerate(found.layers) if at not in taken and step.share > 0)
    top = found.amplifier
    names = {step: layers[call][0] for call, step in matched.items()}
    amplifier = None if top is None else names.get(found.layers.index(top), top.name)
    ceiling = Ceilings(product=found.product, eclipse=found.eclipse, amplifier=amplifier, loose=loose)
    return ceiling, {call: found.layers[step] for call, step in matched.items()}
