"""How steep the steps of a graph that are not affine can be, and where their answers come from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.certify.curves import curve_of
from steepest.models.traced import Graph, Ref, Step

_RANGES: dict[str, tuple[float, float]] = {
    "softplus": (0, 1),
    "hardsigmoid": (0, 0.16667),
    "hardswish": (-0.5, 1.5),
    "mish": (-0.1126, 1.0885),
    "celu": (0, 1),
    "clamp": (0, 1),
    "log_sigmoid_forward": (0, 1),
    "sin": (-1, 1),
    "cos": (-1, 1),
    "atan": (0, 1),
}
"""The range of the derivative, rounded outwards, of functions that have no curve."""


def slopes(step: Step) -> tuple[float, float] | None:
    """Return the range of f' of the function that a step applies to every number; None where it is no such step.

    >>> step = Step(op="aten.leaky_relu", given={"negative_slope": 0.1}, sources=(0,), shape=(2,), name="leaky")
    >>> slopes(step)
    (0.1, 1.0)
    """
    name, curve = step.op.removeprefix("aten."), curve_of(step)
    if curve is not None:
        return curve.slopes
    if len(step.sources) != 1:
        return None
    if name == "_prelu_kernel":
        weight = step.constant("weight")
        return None if weight is None else (min(float(weight.min()), 1.0), max(float(weight.max()), 1.0))
    if name == "elu":
        alpha, scale, inner = (float(step.given.get(key, 1)) for key in ("alpha", "scale", "input_scale"))
        ends = (0.0, scale, scale * alpha * inner)
        return min(ends), max(ends)
    return _RANGES.get(name)


_POOLS = ("aten.max_pool2d_with_indices", "aten.max_pool1d_with_indices", "aten.max_pool2d")
_LARGEST = ("aten.amax", "aten.amin", "aten.max", "aten.min")
_PAIRED = ("aten.maximum", "aten.minimum")


def curved_norms(graph: Graph, at: int) -> tuple[float, ...]:
    """Return, for each source of a step that is not affine, a Lipschitz constant of its answer in L2.

    A largest value of disjoint parts has 1, of overlapping windows √(how many share a value).

    Raises:
        NoCertificateError: the operation has no rule.
    """
    step = graph.steps[at]
    steep = slopes(step)
    if steep is not None:
        return (max(abs(end) for end in steep),)
    if step.op in _POOLS:
        return (math.sqrt(_shared(step)),)
    if (step.op in _LARGEST and _along(step)) or step.op in _PAIRED:
        return (1.0,) * len(step.sources)
    if step.op == "aten._softmax":
        return (0.5,)
    raise unruled(step)


def curved_pull(graph: Graph, at: int, weight: Tensor) -> tuple[Tensor, ...]:
    """Return c ≥ 0 for each source of a step that is not affine: Σ weight·|Δanswer| ≤ Σ c·|Δsource|.

    Args:
        weight: [M, *shape of the answer], at least 0.

    Raises:
        NoCertificateError: the operation has no rule.
    """
    step = graph.steps[at]
    shapes = [graph.steps[source].shape for source in step.sources]
    steep = slopes(step)
    if steep is not None:
        return (weight * max(abs(end) for end in steep),)
    if step.op in _POOLS and _sides(step, "dilation", 1) == [1, 1]:
        kernel, stride, padding = _sides(step, "kernel_size", 1), _strides(step), _sides(step, "padding", 0)
        like = weight.new_zeros(1).expand(len(weight), *shapes[0])
        rest = (kernel, stride, padding, bool(step.given["ceil_mode"]), True, 1)
        return (torch.ops.aten.avg_pool2d_backward(weight.contiguous(), like, *rest),)
    if step.op in _LARGEST and _along(step):
        axes = _along(step)
        kept = [1 if axis in axes else size for axis, size in enumerate(shapes[0], 1)]
        return (weight.reshape(len(weight), *kept).expand(len(weight), *shapes[0]),)
    if step.op in _PAIRED and all(shape == step.shape for shape in shapes):
        return (weight,) * len(shapes)
    raise unruled(step)


def unruled(step: Step) -> NoCertificateError:
    """Return the error for an operation without a Lipschitz constant that is known here."""
    remedy = (
        "its slope has no bound over all inputs: where values multiply or divide each other, only bounds inside a "
        "region (`crown`) can speak."
        if len(step.sources) > 1 or step.op in ("aten.native_layer_norm", "aten.pow", "aten.exp", "aten.div")
        else "no Lipschitz constant of it is known here: use another operation, or a bound inside the region (`crown`)."
    )
    return NoCertificateError(f"{step.op} (step {step.name!r}) has no rule: {remedy}")


def _along(step: Step) -> tuple[int, ...]:
    """Return the axes over which a largest value is taken; () where that is none or the batch's."""
    dims = step.given.get("dim")
    if dims is None or isinstance(dims, Ref):
        return ()
    given = [dims] if isinstance(dims, int) else list(dims)
    rank = len(step.shape) + 1 + (0 if step.given.get("keepdim") else len(given))
    axes = tuple(dim % rank for dim in given)
    return () if 0 in axes else axes


def _sides(step: Step, name: str, default: int) -> list[int]:
    value = step.given.get(name, default)
    sides = [value] if isinstance(value, int) else list(value)
    return sides * 2 if len(sides) == 1 and "2d" in step.op else sides


def _strides(step: Step) -> list[int]:
    return _sides(step, "stride", 0) if step.given.get("stride") else _sides(step, "kernel_size", 1)


def _shared(step: Step) -> int:
    """Return how many windows of a pooling may hold one and the same value, at most."""
    count = 1
    for kernel, stride, spread in zip(
        _sides(step, "kernel_size", 1), _strides(step), _sides(step, "dilation", 1), strict=True
    ):
        count *= -(-kernel // stride) if spread == 1 else kernel
    return count
