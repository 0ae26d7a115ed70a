"""What enters the linear layer that a network calls last: in networks of modules, and in graphs of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor, fx, nn

from steepest.diagnose.contract import NotRun
from steepest.diagnose.probe import Probe
from steepest.models.model import Model

_PRODUCTS = {"_gemm", "_matmul", "matmul", "mm.default", "linear", "linear.default"}
"""Functions of converted ONNX graphs, exported programs and traces; the first two arguments are z and the weights."""
_TURNED = 5
"""Where `_gemm` says that z is transposed."""


def features_of(probe: Probe) -> Model:
    """Return the model up to the input of the linear layer that is called last.

    Raises:
        NotRun: there is none, or its input is not one vector of each example.
    """
    network = probe.model.network
    if not isinstance(network, nn.Module):
        raise NotRun("the model is a function, so its last linear layer cannot be found")
    last = _last_linear(network, probe.x[:1])
    features = _cut(network) if last is None else _entering(network, last)
    if features is None:
        raise NotRun("no linear layer answers last, so there are no features to plant points in")

    def vectors(x: Tensor) -> Tensor:
        found = features(x)
        if found.ndim != 2 or found.shape[:1] != x.shape[:1]:
            raise NotRun("the last linear layer is given more than one vector of each example")
        return found

    made = Model(vectors, probe.model.box, facts=replace(probe.model.facts, classes=None, outputs="logits"))
    return made.asked_by(probe.asked)


def _last_linear(network: nn.Module, x: Tensor) -> nn.Linear | None:
    called: list[nn.Linear] = []
    note: Callable[..., None] = lambda module, given, answer: called.append(module)  # noqa: E731
    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, nn.Linear)]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else None


def _entering(network: nn.Module, part: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what enters a part, as a function of the network's input."""

    def entered(x: Tensor) -> Tensor:
        held: list[Tensor] = []
        hook = part.register_forward_pre_hook(lambda _, given: held.append(given[0]))
        try:
            network(x)
        finally:
            hook.remove()
        return held[-1]

    return entered


def _cut(network: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what enters the last product with weights of the one graph that the network is, or has inside."""
    graphs = [part for part in network.modules() if isinstance(part, fx.GraphModule)]
    before = _before_product(graphs[0]) if len(graphs) == 1 else None
    if before is None or graphs[0] is network:
        return before
    inside = _entering(network, graphs[0])
    return lambda x: before(inside(x))


def _before_product(graph: fx.GraphModule) -> nn.Module | None:
    """Return the graph up to the first argument of its last product with a matrix of weights, if there is one."""
    source = next((node.args[0] for node in reversed(graph.graph.nodes) if _weighs(graph, node)), None)
    if not isinstance(source, fx.Node):
        return None
    made, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    made.graph_copy(graph.graph, copied)
    made.output(copied[source])
    made.eliminate_dead_code()
    return fx.GraphModule(graph, made)


def _weighs(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is the product of something computed with a matrix that the graph holds."""
    if node.op != "call_function" or getattr(node.target, "__name__", "") not in _PRODUCTS or len(node.args) < 2:
        return False
    z, weight = node.args[:2]
    if not isinstance(z, fx.Node) or z.op == "get_attr" or not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return False
    turned = len(node.args) > _TURNED and bool(node.args[_TURNED])
    held = attrgetter(str(weight.target))(graph)
    return isinstance(held, Tensor) and held.ndim == 2 and not turned
