"""The values of a traced graph in float64: margins to which bounds are added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.certify.affine import affine_of
from steepest.models.model import Model
from steepest.models.traced import Graph, Ref, Step, points, traced

ROUNDING = 1e-11
"""So much of their size numbers that a network computed in float64 may be off: far more than sums of float64 are."""


_CLOSE = 1e-3
"""How far, relative to the largest output, float32 may be from the graph."""

_CANCELLED = 1e6
"""So many times larger than its answer the terms of a step may be: bounds are moved by more than that rounds."""

_PROBES = 5
"""Points at which they are compared; another number than that of a trace."""


def graph_of(model: Model, shape: tuple[int, ...]) -> Graph:
    """Return the graph of a model without a softmax over the outputs, which changes no order; see `whole_graph`."""
    return whole_graph(model, shape).without_softmax()


def whole_graph(model: Model, shape: tuple[int, ...]) -> Graph:
    """Return the graph of a model, checked against the model at points of its box.

    Raises:
        NoCertificateError: as `traced`, or graph and model disagree.
    """
    whole = Graph(steps=tuple(_at_hand(step) for step in traced(model, shape).steps))
    x = points(model, shape, _PROBES, 2)
    # One by one: a graph that mixes examples answers otherwise than the model in a batch.
    said, found = (
        model.logits(x).double().cpu(),
        torch.cat([outputs(whole, row, checked=True) for row in torch.split(x, 1)]),
    )
    found = found.log() if model.facts.outputs == "probabilities" else found
    off = float((said - found).abs().max())
    if not off <= _CLOSE * (1 + float(said.abs().max())):
        raise NoCertificateError(
            f"the traced graph of {model.facts.source} answers otherwise than the model (by {off:.3g}): it mixes "
            "examples or keeps a state, and gets no certificate."
        )
    return whole


def _at_hand(step: Step) -> Step:
    """Return a step whose constants are in the processor's memory, where bounds are computed."""

    def moved(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(moved(each) for each in value)
        return value.cpu() if isinstance(value, Tensor) else value

    return replace(step, given={name: moved(value) for name, value in step.given.items()})


def outputs(graph: Graph, x: Tensor, *, checked: bool = False) -> Tensor:
    """Return the outputs of a graph at x [N, *features], float64 [N, K].

    Args:
        checked: refuse a step whose answer is so small beside its terms that rounding decides what it is.

    Raises:
        NoCertificateError: names the step.

    >>> import steepest as st
    >>> from steepest.models.traced import traced
    >>> outputs(traced(st.Model(torch.nn.Flatten()), (2,)), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]], dtype=torch.float64)
    """
    values: dict[int, Any] = {0: x.double().cpu()}
    last = _last_use(graph)
    for at in range(1, len(graph.steps)):
        affine, step = affine_of(graph, at), graph.steps[at]
        sources = [values[source] for source in step.sources]
        if affine is None:
            values[at] = _called(step, sources)
        else:
            numbers = [source.double() for source in sources]  # conversions of what a comparison says are left out
            values[at] = affine.value(*numbers)
            if checked:
                _require_size(step, affine.spread(*(number.abs() for number in numbers)), values[at])
        for source in {s for s in step.sources if last[s] == at}:
            del values[source]
    found: Tensor = values[len(graph.steps) - 1].double()
    return found


def _require_size(step: Step, terms: Tensor, answer: Tensor) -> None:
    most, left = (float(part.abs().amax()) if part.numel() else 0.0 for part in (terms, answer))
    if most > _CANCELLED * (1 + left):
        raise NoCertificateError(
            f"{step.op} (step {step.name!r}) adds numbers of up to {most:.3g} to at most {left:.3g}: so much cancels "
            "that rounding, also in float64, can decide the answer. Scale the layers before it down."
        )


def _last_use(graph: Graph) -> dict[int, int]:
    return {source: at for at, step in enumerate(graph.steps) for source in step.sources}


def _called(step: Step, sources: list[Tensor]) -> Tensor:
    """Return the answer (of several, the first) of an operation that is not affine."""
    left = iter(sources)

    def put(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return type(given)(put(each) for each in given)
        return next(left) if isinstance(given, Ref) else given

    call: Any = step.call
    try:
        schema = call._schema.arguments
        found = call(**{arg.name: put(step.given[arg.name]) for arg in schema if arg.name in step.given})
    except Exception:  # arguments that hold for the traced batch alone raise whatever torch makes of them
        raise NoCertificateError(
            f"{step.op} (step {step.name!r}) has no rule, and cannot be repeated on another number of examples: no "
            "certificate can be given."
        ) from None
    first: Tensor = found if isinstance(found, Tensor) else found[0]
    return first


def lowest(margins: Tensor, y: Tensor) -> Tensor:
    """Return the smallest of bounds [N, K] over the classes other than y, float64 [N]; NaN is no bound.

    >>> lowest(torch.tensor([[9.0, 2.0, 1.0]]), torch.tensor([0]))
    tensor([1.], dtype=torch.float64)
    """
    rest = margins.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return rest.scatter(1, y[:, None], torch.inf).amin(1)


def margins(z: Tensor, y: Tensor) -> Tensor:
    """Return z_y − z_k for every class k from below, float64 [N, K]."""
    gaps = z.gather(1, y[:, None]) - z
    return gaps - ROUNDING * (1 + z.abs().amax(1, keepdim=True))
