"""Interval bounds of a network in training: float32, and on the graph of its weights.

Beside the two ends goes the network's own value at x. Batch norm in training mode takes its batch statistics from
that value for all three, and its running statistics change once, as in any forward.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from steepest.basis.errors import ModelError, NoCertificateError
from steepest.basis.tensors import flat


@final
@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """The value at x and the ends between which it stays inside the region, [N, *features] each."""

    value: Tensor
    low: Tensor
    high: Tensor

    def rising(self, each: Callable[[Tensor], Tensor]) -> Span:
        """Return the span of a function that never falls in any coordinate."""
        return Span(each(self.value), each(self.low), each(self.high))

    def affine(self, each: Callable[[Tensor], Tensor], spread: Callable[[Tensor], Tensor]) -> Span:
        """Return the span of an affine map, given the map and that of its sizes, which takes half-widths."""
        middle, half = each((self.low + self.high) / 2), spread((self.high - self.low) / 2)
        return Span(each(self.value), middle - half, middle + half)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What batch norm or dropout does this time: y = factor·x + shift."""

    factor: Tensor
    shift: Tensor | None

    def of(self, span: Span) -> Span:
        """Return the span of the map."""
        shift = 0 if self.shift is None else self.shift
        return span.affine(lambda x: x * self.factor + shift, lambda half: half * self.factor.abs())


@final
class Walk:
    """One walk through a network: the spans of all its steps.

    Args:
        network: a module that torch.fx can trace, of layers that have a rule.
        at_x: the span of the input.

    Attributes:
        spans: by step, what it answers; other values (sizes, constants) as they are.
        scales: by step, what batch norm and dropout did.

    Raises:
        NoCertificateError: a layer has no rule, or the network cannot be traced; names it.

    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.fill_(-2.0), net[0].bias.fill_(0.5)
    >>> x = torch.zeros(1, 1)
    >>> out = Walk(net, Span(x, x - 1, x + 1)).last
    >>> out.low.item(), out.value.item(), out.high.item()
    (0.0, 0.5, 2.5)
    """

    def __init__(self, network: nn.Module, at_x: Span) -> None:
        self.traced = traced(network)
        self.spans: dict[fx.Node, Any] = {}
        self.scales: dict[fx.Node, Scale] = {}
        for node in self.traced.graph.nodes:
            self.spans[node] = at_x if node.op == "placeholder" else self._answer(node)

    @property
    def final(self) -> fx.Node:
        """The step whose answer the network returns."""
        (output,) = (node for node in self.traced.graph.nodes if node.op == "output")
        found = output.args[0]
        assert isinstance(found, fx.Node)
        return found

    @property
    def last(self) -> Span:
        """The span of the outputs."""
        found = self.spans[self.final]
        assert isinstance(found, Span)
        return found

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a step calls."""
        return self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _answer(self, node: fx.Node) -> Any:
        args: Any = fx.node.map_arg(node.args, self.spans.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self.spans.__getitem__)
        if node.op == "output":
            return args[0]
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.traced)
        if node.op == "call_module":
            return self._through(node, args[0])
        first = args[0] if args else None
        if node.op == "call_method":
            if node.target in _SHAPES_OF and isinstance(first, Span):
                return first.rising(lambda x: getattr(x, str(node.target))(*args[1:], **kwargs))
            if node.target in ("size", "dim") and isinstance(first, Span):
                return getattr(first.value, str(node.target))(*args[1:], **kwargs)
        elif not any(isinstance(each, Span) for each in _leaves(args)):
            return _called(node.target, args, kwargs)
        elif node.target is getattr and isinstance(first, Span) and args[1] == "shape":
            return first.value.shape
        elif (rule := _FUNCTIONS.get(node.target)) is not None and (found := rule(*args, **kwargs)) is not None:
            return found
        raise without_rule(named(node, None))

    def _through(self, node: fx.Node, span: Span) -> Span:
        layer = self.module(node)
        if isinstance(layer, nn.Linear):
            return span.affine(layer, lambda half: functional.linear(half, layer.weight.abs()))
        if isinstance(layer, _ConvNd) and not layer.transposed:
            return span.affine(layer, lambda half: layer._conv_forward(half, layer.weight.abs(), None))
        if isinstance(layer, _BatchNorm):
            self.scales[node] = normalisation(layer, span.value)
            return self.scales[node].of(span)
        if isinstance(layer, _DropoutNd):
            self.scales[node] = Scale(layer(torch.ones_like(span.value)), None)
            return self.scales[node].of(span)
        if isinstance(layer, _RISING) and not getattr(layer, "negative_slope", 0) < 0:
            return span.rising(lambda x: layer(x.clone() if getattr(layer, "inplace", False) else x))
        raise without_rule(named(node, layer))


_TRACES: WeakKeyDictionary[nn.Module, fx.GraphModule] = WeakKeyDictionary()


def traced(network: nn.Module) -> fx.GraphModule:
    """Return the graph of a network, whose layers are the network's own; traced once."""
    if network not in _TRACES:
        try:
            # As a part of another, so that a network that is itself one layer has a graph of one step.
            _TRACES[network] = fx.symbolic_trace(nn.Sequential(network))
        except Exception as error:  # the user's code on stand-ins may raise anything
            raise NoCertificateError(
                f"{type(network).__name__} cannot be traced ({str(error).splitlines()[0][:200]}): interval training "
                "needs a network whose forward does not depend on values. pgd and n-fgsm train any network."
            ) from None
    return _TRACES[network]


def normalisation(norm: _BatchNorm, value: Tensor) -> Scale:
    """Return what batch norm does to a batch; in training mode its running statistics change, once."""
    batch = norm.training or norm.running_mean is None
    if batch:
        norm(value.detach())
        wide = value.transpose(0, 1).flatten(1)
        mean, var = wide.mean(1), wide.var(1, correction=0)
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var = norm.running_mean, norm.running_var
    factor = (var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    shift = -mean * factor if norm.bias is None else norm.bias - mean * factor
    form = (1, -1, *[1] * (value.ndim - 2))
    return Scale(factor.reshape(form), shift.reshape(form))


def named(node: fx.Node, layer: nn.Module | None) -> str:
    """Return how a message calls a step: the layer's place in the network and its type, or the function."""
    if layer is None:
        return f"{node.name} ({getattr(node.target, '__name__', node.target)})"
    return f"{str(node.target).removeprefix('0.')} ({type(layer).__name__})"


def without_rule(what: str) -> NoCertificateError:
    """Return the error for a layer that intervals do not know."""
    return NoCertificateError(
        f"the layer {what} has no rule for interval training; there are rules for linear and convolutional layers, "
        "batch norm, pooling, dropout, flattening, sums, concatenation and rising activations (ReLU, LeakyReLU, tanh, "
        "sigmoid, ELU, softplus). Replace the layer, or train with pgd or n-fgsm, which take any."
    )


_RISING = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.ELU, nn.CELU, nn.SELU, nn.Softplus,
    nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d,
)  # fmt: skip
_SHAPES_OF = frozenset("flatten view reshape mean relu tanh sigmoid squeeze unsqueeze contiguous transpose".split())


def _called(target: Any, args: Any, kwargs: Any) -> Any:
    return target(*args, **kwargs)


def _leaves(args: Any) -> list[Any]:
    return [leaf for each in args for leaf in (_leaves(each) if isinstance(each, list | tuple) else [each])]


def _rising(function: Callable[..., Tensor]) -> Callable[..., Span]:
    def rule(span: Span, *args: Any, **kwargs: Any) -> Span:
        kwargs.pop("inplace", None)
        return span.rising(lambda x: function(x, *args, **kwargs))

    return rule


def _added(a: Any, b: Any) -> Span:
    if isinstance(a, Span) and isinstance(b, Span):
        return Span(a.value + b.value, a.low + b.low, a.high + b.high)
    span, number = (a, b) if isinstance(a, Span) else (b, a)
    return Span(span.value + number, span.low + number, span.high + number)


def _times(a: Any, b: Any) -> Span | None:
    if isinstance(a, Span) and isinstance(b, Span):
        return None
    span, number = (a, b) if isinstance(a, Span) else (b, a)
    return Scale(torch.as_tensor(number, dtype=span.value.dtype, device=span.value.device), None).of(span)


def _less(a: Any, b: Any) -> Span | None:
    return _added(a, _times(b, -1.0) if isinstance(b, Span) else -b)


def _over(a: Any, b: Any) -> Span | None:
    return None if isinstance(b, Span) else _times(a, 1 / b)


def _joined(parts: list[Span] | tuple[Span, ...], dim: int = 0) -> Span:
    ends = ([getattr(part, name) for part in parts] for name in ("value", "low", "high"))
    return Span(*(torch.cat(each, dim) for each in ends))


_FUNCTIONS: dict[Any, Callable[..., Span | None]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add), _added),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), _less),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), _times),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), _over),
    **{
        function: _rising(function)
        for function in (
            torch.flatten, torch.relu, torch.tanh, torch.sigmoid, torch.mean, functional.relu, functional.leaky_relu,
            functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d,
        )
    },
    torch.cat: _joined,
}  # fmt: skip


def margins(walk: Walk, y: Tensor) -> Tensor:
    """Return lower bounds of z_y − z_k over the region, [N, K], 0 at k = y.

    A linear last layer is bounded together with the difference, so that what its outputs share cancels.
    """
    head = walk.module(walk.final)
    if not isinstance(head, nn.Linear):
        last = walk.last
        own = y[:, None]
        return (last.low.gather(1, own) - last.high).scatter(1, own, 0.0)
    rows, offset = differences(head, y)
    before = walk.spans[walk.final.all_input_nodes[0]]
    return concrete(rows, before, offset)


def differences(head: nn.Linear, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows w_y − w_k, [N, K, d], and offsets b_y − b_k, [N, K], of a last layer."""
    if int(y.max()) >= head.out_features:
        raise ModelError(f"labels run to {int(y.max())}, but the network has {head.out_features} outputs.")
    bias = head.weight.new_zeros(head.out_features) if head.bias is None else head.bias
    return head.weight[y][:, None] - head.weight[None], bias[y][:, None] - bias[None]


def concrete(rows: Tensor, span: Span, offset: Tensor) -> Tensor:
    """Return the least value of ⟨rows, h⟩ + offset for h in the span; rows are [N, K, *features]."""
    middle, half = flat((span.low + span.high) / 2), flat((span.high - span.low) / 2)
    wide = rows.flatten(2)
    found = torch.baddbmm(offset[:, :, None], wide, middle[:, :, None]) - wide.abs() @ half[:, :, None]
    return found.squeeze(2)
