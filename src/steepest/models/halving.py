"""A network that computes in bfloat16 inside, between its first and its last weights."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import ClassVar, TypeGuard, final

import torch
from torch import Tensor, fx, nn


@final
class Halved(nn.Module):
    """A network with bfloat16 inside, which takes points and answers in float32."""

    hands_on: ClassVar[bool] = True

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Answer as the network does, up to the rounding inside."""
        out: Tensor = self.inner(x)
        return out


@final
class Border(nn.Module):
    """A layer in float32: the first, which answers in bfloat16, or the last, which may be asked in it."""

    def __init__(self, layer: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.layer, self.first = layer, first
        self.training = False

    def forward(self, *args: object) -> Tensor:
        """Answer as the layer does."""
        given = args if self.first else [each.float() if _floating(each) else each for each in args]
        out: Tensor = self.layer(*given)
        return out.bfloat16() if self.first else out


def halved(network: nn.Module, x: Tensor) -> nn.Module | None:
    """Return a copy of a float32 network that computes in bfloat16 between its first and its last layer of weights.

    Those two, and what comes before and after them, stay in float32: bfloat16 has 8 bits, so points near 1 would lie
    1/256 apart, and logits as near would be ties. Layers come in the order in which the example x[:1] passes them:
    modules without parts of their own, and the functions with weights that converted files consist of.

    Returns:
        None if there is nothing inside, or a layer serves both inside and outside, or first and last.

    Raises:
        Exception: the network cannot be copied or asked.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    >>> [str(each.dtype) for each in halved(net, torch.zeros(1, 2)).parameters() if each.ndim == 2]
    ['torch.float32', 'torch.bfloat16', 'torch.float32']
    """
    made = copy.deepcopy(network)
    for part in list(made.modules()):
        if isinstance(part, fx.GraphModule):
            _take_apart(part)
    calls = _calls(made, x[:1])
    weighted = [at for at, part in enumerate(calls) if _leaf(part) and any(map(_weighs, part.parameters()))]
    if not weighted or calls[weighted[0]] is calls[weighted[-1]]:
        return None
    first, last = weighted[0], weighted[-1]
    outside = set(filter(_leaf, [*calls[: first + 1], *calls[last:]]))
    inside = [part for part in made.modules() if part not in outside]
    if not outside.isdisjoint(calls[first + 1 : last]) or not any(map(_weighs, _own(inside))):
        return None
    for part in inside:
        # What a part holds in buffers and uses before the first layer is as a rule the data's mean and deviation.
        _halve(part, buffers=part not in calls[:first])
    _set_border(made, calls[first], first=True)
    _set_border(made, calls[last], first=False)
    return Halved(made)


def _calls(network: nn.Module, x: Tensor) -> list[nn.Module]:
    """Return the parts that hold floating tensors themselves, in the order in which they are called."""
    calls: list[nn.Module] = []
    parts = [part for part in network.modules() if any(map(_floating, _own([part], buffers=True)))]
    hooks = [part.register_forward_pre_hook(lambda part, args: calls.append(part)) for part in parts]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return calls


def _leaf(part: nn.Module) -> bool:
    return not any(True for _ in part.children())


def _own(parts: list[nn.Module], *, buffers: bool = False) -> list[Tensor]:
    """Return the tensors that parts hold themselves."""
    held: list[Tensor] = [value for part in parts for value in part.parameters(recurse=False)]
    return [*held, *(value for part in parts for value in part.buffers(recurse=False))] if buffers else held


def _floating(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


def _weighs(value: Tensor) -> bool:
    """Whether this is a matrix or kernels; a row, or a constant that all examples share, only scales or shifts."""
    return value.ndim > 1 and len(value) > 1 and value[0].numel() > 1


def _halve(part: nn.Module, *, buffers: bool) -> None:
    """Cast what a part holds itself; buffers only if told so."""
    for name, value in list(part.named_parameters(recurse=False)):
        setattr(part, name, nn.Parameter(value.bfloat16(), requires_grad=False))
    for name, buffer in list(part.named_buffers(recurse=False)):
        if buffers and _floating(buffer):
            setattr(part, name, buffer.bfloat16())


def _set_border(network: nn.Module, layer: nn.Module, *, first: bool) -> None:
    border = Border(layer, first=first)
    for name, part in list(network.named_modules(remove_duplicate=False)):
        if part is layer:
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, border)


def _take_apart(graph: fx.GraphModule) -> None:
    """Make each call of a graph that uses floating tensors of the graph's own a module which holds them."""
    for node in list(graph.graph.nodes):
        given = node.all_input_nodes
        held = {each: attrgetter(str(each.target))(graph) for each in given if each.op == "get_attr"}
        if node.op not in ("call_function", "call_method") or not any(map(_floating, held.values())):
            continue
        graph.add_submodule(f"{node.name}_layer", _layer(node, held))
        with graph.graph.inserting_before(node):
            layer = graph.graph.call_module(f"{node.name}_layer", tuple(each for each in given if each not in held))
        node.replace_all_uses_with(layer)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    used = {node.target for node in graph.graph.nodes}
    for name in [name for name, _ in graph.named_parameters(recurse=False) if name not in used]:
        delattr(graph, name)
    graph.recompile()


def _layer(node: fx.Node, held: dict[fx.Node, object]) -> fx.GraphModule:
    """Return one call with the tensors that it uses, each a copy of its own."""
    root, graph, made = nn.Module(), fx.Graph(), dict[fx.Node, fx.Node]()
    for each in node.all_input_nodes:
        if each not in held:
            made[each] = graph.placeholder(each.name)
    for each, value in held.items():
        setattr(
            root, each.name, nn.Parameter(value.detach().clone(), requires_grad=False) if _floating(value) else value
        )
        made[each] = graph.get_attr(each.name)
    graph.output(graph.node_copy(node, made.__getitem__))
    layer = fx.GraphModule(root, graph)
    layer.training = False
    return layer
