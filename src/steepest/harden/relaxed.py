"""CROWN-IBP: one linear pass backwards over interval bounds, on the graph of the weights."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from steepest.basis.errors import NoCertificateError
from steepest.harden.intervals import Scale, Span, Walk, concrete, differences, margins, named

_SAME_SHAPE = (nn.Identity,)
_FLATTENS = (nn.Flatten, nn.Unflatten)


def tight_margins(walk: Walk, y: Tensor) -> Tensor:
    """Return lower bounds of z_y − z_k over the region, [N, K]: per entry the better of intervals and linear pass.

    Raises:
        NoCertificateError: the last layer is not linear, or a layer has no rule here; `ibp` has more.

    Source: Zhang et al. 2020.
    """
    head = walk.module(walk.final)
    if not isinstance(head, nn.Linear):
        raise NoCertificateError("crown-ibp needs a linear last layer; ibp does without.")
    rows, offset = differences(head, y)
    front = walk.final.all_input_nodes[0]
    wanted: dict[fx.Node, Tensor] = {front: rows}
    lower = offset
    for node in reversed(walk.traced.graph.nodes):
        if node not in wanted or node.op == "placeholder":
            continue
        span = walk.spans[node.all_input_nodes[0]]
        for source, share, more in _back(walk, node, span, wanted.pop(node)):
            wanted[source] = wanted[source] + share if source in wanted else share
            lower = lower + more if more is not None else lower
    ((start, last),) = wanted.items()
    return torch.maximum(concrete(last, walk.spans[start], lower), margins(walk, y))


Back = list[tuple[fx.Node, Tensor, Tensor | None]]


def _back(walk: Walk, node: fx.Node, span: Span, rows: Tensor) -> Back:
    """Return the rows [N, K, *features] at each source of a step, and what is added to the bound, [N, K]."""
    layer, source = walk.module(node), node.all_input_nodes[0]
    shape = (*rows.shape[:2], *span.value.shape[1:])
    if isinstance(layer, nn.Linear) and span.value.ndim == 2:
        return [(source, rows @ layer.weight, None if layer.bias is None else rows @ layer.bias)]
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        given = rows.flatten(0, 1)
        size = (given.shape[0], *span.value.shape[1:])
        back = _turned(size, layer.weight, given, layer.stride, layer.padding, layer.dilation, layer.groups)
        more = None if layer.bias is None else rows.sum((3, 4)) @ layer.bias
        return [(source, back.reshape(shape), more)]
    if isinstance(layer, nn.AvgPool2d) and layer.padding == 0 and not layer.ceil_mode:
        return [(source, _spread(layer, span, rows).reshape(shape), None)]
    if node in walk.scales:
        return [(source, *_scaled(walk.scales[node], rows))]
    if isinstance(layer, nn.ReLU) or node.target in (torch.relu, functional.relu, "relu"):
        return [(source, *_rectified(span, rows))]
    if isinstance(layer, (*_FLATTENS, *_SAME_SHAPE)) or node.target in (torch.flatten, "flatten", "view", "reshape"):
        return [(source, rows.reshape(shape), None)]
    if node.target in (operator.add, operator.iadd, torch.add) and len(node.all_input_nodes) == 2:
        return [(each, rows, None) for each in node.all_input_nodes]
    raise NoCertificateError(
        f"the layer {named(node, layer)} has no rule for crown-ibp; there are rules for linear layers, 2-D "
        "convolutions, average pooling, batch norm, dropout, flattening, sums and ReLU. ibp has more; pgd and "
        "n-fgsm take any network."
    )


def _scaled(scale: Scale, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    # The factor has the axis of examples (or one in its place); the rows have the classes behind it.
    back = rows * scale.factor.unsqueeze(1)
    more = None if scale.shift is None else (rows * scale.shift.unsqueeze(1)).flatten(2).sum(2)
    return back, more


def _rectified(span: Span, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Put lines in the place of max(0, z): from above the chord, from below 0 or z, whichever leaves less."""
    low, high = span.low.clamp_max(0), span.high.clamp_min(0)
    tiny = torch.finfo(low.dtype).tiny
    above = high / (high - low).clamp_min(tiny)
    below = (high > -low).to(low.dtype)
    gain, loss = rows.clamp_min(0), rows.clamp_max(0)
    back = gain * below.unsqueeze(1) + loss * above.unsqueeze(1)
    return back, -(loss * (above * low).unsqueeze(1)).flatten(2).sum(2)


def _spread(layer: nn.AvgPool2d, span: Span, rows: Tensor) -> Tensor:
    given, channels = rows.flatten(0, 1), rows.shape[2]
    size = (given.shape[0], *span.value.shape[1:])
    sides = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size, layer.kernel_size)
    even = rows.new_full((channels, 1, *sides), 1 / (layer.divisor_override or sides[0] * sides[1]))
    return _turned(size, even, given, layer.stride, 0, 1, channels)


def _turned(size: tuple[int, ...], weight: Tensor, rows: Tensor, *rest: Any) -> Tensor:
    """Return the rows before a convolution with such a weight, stride, padding, dilation and groups."""
    found: Tensor = conv2d_input(size, weight, rows, *rest)  # type: ignore[no-untyped-call]
    return found
