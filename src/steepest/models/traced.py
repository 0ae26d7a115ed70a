"""A network as the graph of its operations, in double precision: what interval and linear bounds walk through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

from steepest.basis.errors import NoCertificateError
from steepest.models.loading.adapt import Rebatched
from steepest.models.model import Model

_SILENT = frozenset({"aten.detach", "aten.alias", "aten.clone", "aten.lift_fresh_copy", "aten.contiguous"})
"""Operations that change no number."""

_FILLED = frozenset(f"aten.{name}" for name in "new_ones new_zeros new_full ones_like zeros_like full_like".split())
_EMPTY = frozenset({"aten.new_empty", "aten.empty_like", "aten.new_empty_strided"})
"""Operations that look at the shape of their input alone."""

_PARTS = ("aten.split", "aten.split_with_sizes", "aten.unbind")
"""Operations that cut their input into several answers."""

_BATCH = 7
"""Examples of a trace; one axis more that happens to be as long would do no harm."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of step `at` of a graph; 0 is the input."""

    at: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One operation whose answer depends on the input.

    Attributes:
        op: its name in torch's core operators, e.g. "aten.convolution"; "input" for step 0.
        call: the operator itself, and `count` the batch that was traced: batch sizes among the arguments are that.
        given: its arguments by their names there; tensors that do not depend on the input are float64 constants.
        sources: the steps whose values it takes, in the order of the arguments.
        shape: of its answer for one example.
        name: what the trace calls it, for tables and messages.
    """

    op: str
    given: dict[str, Any]
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    name: str
    call: Callable[..., Any] | None = None
    count: int = 1

    def constant(self, name: str) -> Tensor | None:
        """Return an argument that does not depend on the input, as a tensor; None where there is none."""
        value = self.given.get(name)
        if isinstance(value, Ref):
            return None
        if value is None or isinstance(value, Tensor):
            return value
        return torch.tensor(value, dtype=torch.float64)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """The steps of a network in the order in which it computes them; the last one answers [N, K]."""

    steps: tuple[Step, ...]

    @property
    def outputs(self) -> int:
        """K."""
        return self.steps[-1].shape[0]

    def without_softmax(self) -> Graph:
        """Return the graph of what is behind a softmax over the outputs: the same order of classes at every point."""
        last = self.steps[-1]
        behind = last.op in ("aten._softmax", "aten._log_softmax") and last.sources == (len(self.steps) - 2,)
        if behind and last.given["dim"] in (1, -1):
            return Graph(steps=self.steps[:-1])
        return self


def traced(model: Model, shape: tuple[int, ...]) -> Graph:
    """Return the graph of a model for examples of one shape, its constants in float64.

    The network runs twice under a tracer, on different points of its box. Whatever differs between the two traces
    (a constant that was computed from the data, another branch) is refused, and so is a graph whose batch axis does
    not come first everywhere.

    Args:
        shape: of one example.

    Raises:
        NoCertificateError: the network cannot be traced, computes in half precision, or mixes examples; names what was
            met and what would help.

    >>> graph = traced(Model(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())), (2,))
    >>> [step.op for step in graph.steps]
    ['input', 'aten.addmm', 'aten.relu']
    """
    if model.facts.answers != "gradient" or model.oracles:
        raise NoCertificateError(
            f"{model.facts.source} is asked through {'an oracle' if model.oracles else 'a plain function'}, whose "
            "operations nobody sees: give the network itself (st.Model(module), st.load(path))."
        )
    network: Any = model.network
    count = network.smallest if isinstance(network, Rebatched) else _BATCH
    asked = network.network if isinstance(network, Rebatched) else network
    first, second = (_recorded(model, asked, points(model, shape, count, seed)) for seed in (0, 1))
    graph, other = _graph(first, count), _graph(second, count)
    _require_alike(graph, other)
    return graph


def points(model: Model, shape: tuple[int, ...], count: int, seed: int) -> Tensor:
    """Return so many points of the model's box, drawn for traces and for what checks them."""
    drawn = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    lower, upper = (bound.float().nan_to_num(0, 4.0, -4.0) for bound in model.box.bounds(drawn))
    parameters = model.network.parameters() if isinstance(model.network, torch.nn.Module) else iter(())
    like = next((each for each in parameters if each.is_floating_point()), drawn)
    return (lower + drawn * (upper - lower)).to(like)


def _recorded(model: Model, network: Any, x: Tensor) -> fx.GraphModule:
    from torch.func import functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with model.borrowed(0), torch.no_grad(), _Circular():
            # Operations in place become new values, so that a step's answer is what it was when it was made.
            return make_fx(functionalize(network), tracing_mode="real")(x)
    except Exception as error:  # the user's code, run on stand-ins, may raise anything
        reason = (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
        raise NoCertificateError(
            f"{model.facts.source} cannot be traced ({reason}): what it computes must not depend on the values of its "
            "input (no branches on data, no NumPy inside). Give a network of tensor operations."
        ) from None


@final
class _Circular(TorchFunctionMode):
    """Circular padding as a concatenation; torch writes it in place where no tracer follows."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {**dict(zip(("input", "pad", "mode"), args, strict=False)), **(kwargs or {})}
        if func is not torch.nn.functional.pad or given.get("mode") != "circular":
            return func(*args, **(kwargs or {}))
        x, pad = given["input"], given["pad"]
        for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
            length = x.shape[-axis]
            x = torch.cat([x.narrow(-axis, length - before, before), x, x.narrow(-axis, 0, after)], -axis)
        return x


def _graph(recorded: fx.GraphModule, count: int) -> Graph:
    steps: list[Step] = []
    known: dict[fx.Node, Any] = {}
    answer: Any = None
    recorded.graph.eliminate_dead_code(lambda node: _writes(node))
    for node in recorded.graph.nodes:
        if node.op == "placeholder":
            known[node] = Ref(0)
            shape = tuple(node.meta["val"].shape[1:]) if "val" in node.meta else ()
            steps.append(Step(op="input", given={}, sources=(), shape=shape, name="input"))
        elif node.op == "get_attr":
            known[node] = getattr(recorded, str(node.target))
        elif node.op == "call_function":
            known[node] = _answer(node, known, steps, count)
        else:
            (answer,) = fx.node.map_arg(node.args, known.__getitem__)
    if not isinstance(answer, Ref):
        raise NoCertificateError("the outputs do not depend on the input: there is nothing to certify.")
    return _pruned(steps, answer.at)


def _writes(node: fx.Node) -> bool:
    """Return whether something may not be left out although nobody takes its answer."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or (schema is not None and bool(schema.is_mutable))


def _answer(node: fx.Node, known: dict[fx.Node, Any], steps: list[Step], count: int) -> Any:
    """Return the value of a call: a constant, the value of a step known already, or that of a new step."""
    target: Any = node.target
    args: tuple[Any, ...] = fx.node.map_arg(node.args, known.__getitem__)
    kwargs: dict[str, Any] = fx.node.map_arg(node.kwargs, known.__getitem__)
    sources = tuple(ref.at for ref in _refs((args, kwargs)))
    if not sources:
        return target(*args, **kwargs)
    schema = getattr(target, "_schema", None)
    op = "getitem" if schema is None else schema.name.replace("::", ".")
    if schema is not None and schema.is_mutable:
        raise NoCertificateError(
            f"{op} writes in place where the trace cannot follow: let the network make a new tensor instead."
        )
    if op in _SILENT:
        return args[0]
    if op == "aten._to_copy" and kwargs.get("dtype") in (None, torch.float32, torch.float64):
        return args[0]
    if op in _FILLED | _EMPTY:
        like = node.meta["val"]
        blank = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        return blank if op in _EMPTY else target(blank, *args[1:], **kwargs)
    shape = _features(node.meta.get("val"), op, count)
    if schema is None:
        whole = steps[sources[0]]
        if whole.op in _PARTS:
            op, target, given = _part(whole, args[1], node.meta["val"])
            sources = whole.sources
        else:
            given = {"self": args[0], "index": args[1]}
    else:
        given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    given = {key: _wide(each) for key, each in given.items()}
    steps.append(Step(op=op, given=given, sources=sources, shape=shape, name=node.name, call=target, count=count))
    return Ref(len(steps) - 1)


def _part(whole: Step, number: int, part: Tensor) -> tuple[str, Callable[..., Any], dict[str, Any]]:
    """Return (name, operator, arguments) of what takes one of the parts into which `whole` cuts its source."""
    value, dim = whole.given["self"], whole.given["dim"]
    if whole.op == "aten.unbind":
        return "aten.select", torch.ops.aten.select.int, {"self": value, "dim": dim, "index": number}
    sizes = whole.given.get("split_sizes") or [whole.given["split_size"]] * (number + 1)
    start = sum(sizes[:number])
    given = {"self": value, "dim": dim, "start": start, "end": start + part.shape[dim], "step": 1}
    return "aten.slice", torch.ops.aten.slice.Tensor, given


def _features(value: object, op: str, count: int) -> tuple[int, ...]:
    """Return the shape of an answer (of several, the first) without its batch axis, which must come first."""
    if isinstance(value, tuple | list):
        return _features(value[0], op, count)
    if not isinstance(value, Tensor) or not value.ndim or value.shape[0] != count:
        form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise NoCertificateError(
            f"{op} answers {form} to {count} examples: the examples are mixed, or lie on another axis than the first. "
            "Certificates need a network that treats every example alone, [N, ...] throughout."
        )
    if value.is_floating_point() and value.dtype not in (torch.float32, torch.float64):
        raise NoCertificateError(
            f"{op} computes in {value.dtype}, whose rounding is no small matter: certify the network in float32 "
            "(module.float())."
        )
    return tuple(value.shape[1:])


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        yield from (ref for each in value.values() for ref in _refs(each))
    elif isinstance(value, list | tuple):
        yield from (ref for each in value for ref in _refs(each))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value


def _pruned(steps: list[Step], last: int) -> Graph:
    """Return the graph of what the output needs, renumbered."""
    needed, order = {0, last}, range(last, -1, -1)
    for at in order:
        if at in needed:
            needed.update(steps[at].sources)
    kept = sorted(needed)
    place = {old: new for new, old in enumerate(kept)}

    def moved(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(place[value.at])
        if isinstance(value, list | tuple):
            return type(value)(moved(each) for each in value)
        return value

    made = []
    for at in kept:
        step = steps[at]
        given = {name: moved(value) for name, value in step.given.items()}
        sources = tuple(place[source] for source in step.sources)
        made.append(replace(step, given=given, sources=sources))
    return Graph(steps=tuple(made))


def _require_alike(graph: Graph, other: Graph) -> None:
    same = len(graph.steps) == len(other.steps) and all(
        a.op == b.op and a.sources == b.sources and a.shape == b.shape and _same(a.given, b.given)
        for a, b in zip(graph.steps, other.steps, strict=False)
    )
    if not same:
        raise NoCertificateError(
            "the network computes differently on different inputs (a branch, a constant taken from the data, or random "
            "numbers): a certificate would speak of one input's computation only. Remove what depends on the data."
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
