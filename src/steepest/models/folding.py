"""A network without the layers that evaluation does not need: batch-norm folded into its neighbour, no dropout."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from operator import attrgetter

from torch import Tensor, fx, nn

_IDLE = {nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity}
_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
_LAYERS = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear}
"""Exact types: a class derived from one of these may do something else."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_IDLE_CALLS = {"dropout.default"}
_NORM_CALLS = {"_batch_norm": (6, 5), "batch_norm.default": (5, 7)}
"""Functions of converted ONNX graphs and of exported programs; where the arguments `training` and ε stand."""
_LAYER_CALLS = {"_conv", "_gemm", "conv1d.default", "conv2d.default", "conv3d.default", "linear.default"}


def folded(network: nn.Module) -> nn.Module | None:
    """Return a copy of a network in evaluation mode, with batch-norm folded away and dropout left out.

    y = γ·(Wx + b − μ)/√(σ² + ε) + β is one layer with the weights γW/√(σ² + ε). Folded is batch-norm whose one input
    is a convolution or a linear layer that serves nothing else: as modules, or as the functions that converted ONNX
    files and exported programs consist of. Parts that cannot be traced stay, and their own parts are tried.

    Returns:
        None if there was nothing to fold or to leave out.

    Raises:
        Exception: the network cannot be copied.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).eval()
    >>> [type(part).__name__ for part in folded(net).children()]
    ['Linear']
    """
    made, changes = _lightened(copy.deepcopy(network))
    return made if changes else None


def _lightened(part: nn.Module) -> tuple[nn.Module, int]:
    """Return the part, or what takes its place, and how many layers it has lost."""
    if type(part).__module__.startswith("torch.nn") and not isinstance(part, _CONTAINERS):
        return part, 0  # torch's own layers may ask their parts otherwise than by calling them
    graph = _graph_of(part)
    if graph is not None:
        changes = _swept(graph)
        return (graph, changes) if changes else (part, 0)
    total = 0
    for name, child in list(part.named_children()):
        made, changes = _lightened(child)
        if changes:
            setattr(part, name, made)
            total += changes
    return part, total


def _graph_of(part: nn.Module) -> fx.GraphModule | None:
    """Return the part as a graph of calls, or None where tracing fails or would lose hooks."""
    if isinstance(part, fx.GraphModule):
        return part
    if _hooked(part):
        return None
    try:
        return fx.symbolic_trace(part)
    except Exception:  # the user's code, run on stand-ins, may raise anything
        return None


def _swept(graph: fx.GraphModule) -> int:
    """Fold and leave out what can be in a graph; return how many layers."""
    gone = 0
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            continue
        if _idle(graph, node) or _fold_module(graph, source, node) or _fold_call(graph, source, node):
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
            gone += 1
    if gone:
        graph.graph.eliminate_dead_code()
        graph.delete_all_unused_submodules()
        graph.recompile()
        for part in graph.modules():  # containers made by a trace are in training mode, and decide nothing
            part.training = False
    return gone


def _idle(graph: fx.GraphModule, node: fx.Node) -> bool:
    return type(_module(graph, node)) in _IDLE or _name(node) in _IDLE_CALLS


def _fold_module(graph: fx.GraphModule, source: fx.Node, node: fx.Node) -> bool:
    norm, layer, target = _module(graph, node), _module(graph, source), str(source.target)
    if type(norm) not in _NORMS or type(layer) not in _LAYERS or len(source.users) > 1:
        return False
    assert norm is not None and layer is not None
    others = [str(other.target) for other in graph.graph.nodes if other is not source]
    if norm.running_mean is None or any(f"{other}.".startswith(f"{target}.") for other in others):
        return False  # the batch's own statistics, also in evaluation; a layer that serves elsewhere too
    one = attrgetter("weight", "bias")
    found = _folded(one(layer), (*one(norm), norm.running_mean, norm.running_var), float(norm.eps))  # type: ignore[arg-type]
    if found is None:
        return False
    made = copy.deepcopy(layer)
    made.weight, made.bias = found
    owner, _, name = target.rpartition(".")
    setattr(graph.get_submodule(owner), name, made)
    return True


def _fold_call(graph: fx.GraphModule, source: fx.Node, node: fx.Node) -> bool:
    if _name(node) not in _NORM_CALLS or _name(source) not in _LAYER_CALLS or len(source.users) > 1:
        return False
    training, eps = (node.args[at] for at in _NORM_CALLS[_name(node)])
    given = [*source.args, None, None][1:3]
    layer, norm = ([_tensor(graph, arg) for arg in args] for args in (given, node.args[1:5]))
    if training or layer[0] is None or (layer[1] is None) != (given[1] is None) or any(each is None for each in norm):
        return False
    across = _name(source) == "_gemm" and not source.args[6]
    if _name(source) == "_gemm" and source.args[3:6] != (1.0, 1.0, 0):
        return False
    found = _folded((layer[0].mT if across else layer[0], layer[1]), norm, float(str(eps)))
    if found is None:
        return False
    weight, bias = found
    named = {"weight": nn.Parameter(weight.mT.contiguous(), requires_grad=False) if across else weight, "bias": bias}
    with graph.graph.inserting_before(source):
        fresh = [_entered(graph, f"{source.name}_folded_{word}", each) for word, each in named.items()]
    source.args = (source.args[0], *fresh, *source.args[3:])
    return True


def _folded(
    layer: Sequence[Tensor | None], norm: Sequence[Tensor | None], eps: float
) -> tuple[nn.Parameter, nn.Parameter] | None:
    """Return weight and bias of a layer [out, ...] after the batch-norm (γ, β, μ, σ²); None if they do not fit."""
    (weight, bias), (scale, shift, mean, variance) = layer, norm
    if weight is None or mean is None or variance is None or mean.shape != weight.shape[:1]:
        return None
    # In double precision: what is folded once is asked very often.
    factor = (1 if scale is None else scale.detach().double()) / (variance.detach().double() + eps).sqrt()
    moved = ((0 if bias is None else bias.detach().double()) - mean.double()) * factor
    moved = moved if shift is None else moved + shift.detach().double()
    whole = weight.detach().double() * factor.reshape(-1, *[1] * (weight.ndim - 1))
    made = [nn.Parameter(each.to(weight.dtype), requires_grad=False) for each in (whole, moved)]
    return made[0], made[1]


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, unless something watches or changes what goes through it."""
    found = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return None if found is None or _hooked(found) else found


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _tensor(graph: fx.GraphModule, arg: object) -> Tensor | None:
    found = attrgetter(str(arg.target))(graph) if isinstance(arg, fx.Node) and arg.op == "get_attr" else None
    return found if isinstance(found, Tensor) else None


def _entered(graph: fx.GraphModule, name: str, value: nn.Parameter) -> fx.Node:
    graph.register_parameter(name, value)
    return graph.graph.get_attr(name)


def _hooked(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)
