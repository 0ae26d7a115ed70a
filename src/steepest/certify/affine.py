"""Networks that are one affine map: which operations keep a map affine, and the map itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.models.traced import Graph, Ref, Step

_SHAPED = frozenset({"aten.view", "aten._unsafe_view", "aten.reshape", "aten.expand"})
"""Operations whose arguments name the shape of the traced batch."""

_SUMS = frozenset({"aten.add", "aten.sub", "aten.cat", "aten.stack"})
"""Affine in all that they take together."""

_NORMS = frozenset({"aten.native_batch_norm", "aten._native_batch_norm_legit_no_training", "aten.cudnn_batch_norm"})

_MAPS = _SHAPED | frozenset(
    f"aten.{name}"
    for name in (
        "mm addmm bmm matmul linear convolution mul neg permute transpose t squeeze unsqueeze select slice flip roll "
        "mean sum avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d constant_pad_nd "
        "reflection_pad2d replication_pad2d upsample_nearest2d upsample_bilinear2d index_select rsub"
    ).split()
)
"""Affine in one of the things that they take, the others being constants."""

_ROOM = 2**22
"""So many numbers are pushed through the network at once."""


def is_affine(step: Step) -> bool:
    """Return whether a step is an affine map of the steps that it takes."""
    moving = [name for name, value in step.given.items() if isinstance(value, Ref)]
    if step.op == "aten.div":
        return moving == ["self"] and step.given.get("rounding_mode") is None
    if step.op in _NORMS:
        return moving == ["input"] and not step.given.get("training", False)
    if step.op == "getitem":
        return step.given["index"] == 0
    return step.op in _SUMS or step.op == "input" or (step.op in _MAPS and len(step.sources) == 1)


def hidden_units(graph: Graph) -> int:
    """Return how many numbers of an example come out of operations that are no affine map: what bounds must relax."""
    return sum(math.prod(step.shape) for step in graph.steps if not is_affine(step))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Affine:
    """z = W·x + b in float64.

    Attributes:
        slope: W, [K, *features].
        offset: b, [K].
        largest: the largest number met on the way, which is what roundings are relative to.
    """

    slope: Tensor
    offset: Tensor
    largest: float


def affine(graph: Graph, device: torch.device) -> Affine:
    """Return the affine map that a graph is, read off its answers at 0 and at the unit vectors.

    Raises:
        NoCertificateError: some operation of the graph is no affine map; names it.
    """
    for step in graph.steps:
        if not is_affine(step):
            raise NoCertificateError(
                f"{step.op.removeprefix('aten.')} ({step.name}) is no affine map, and this certifier is for networks "
                "that are one: choose another of `steepest list certifiers`."
            )
    shape = graph.steps[0].shape
    size, width = math.prod(shape), max(math.prod(step.shape) for step in graph.steps)
    offset, largest = _passed(graph, torch.zeros(1, *shape, dtype=torch.float64, device=device))
    columns = []
    for first in range(0, size, max(1, _ROOM // width)):
        places = torch.arange(first, min(size, first + max(1, _ROOM // width)), device=device)
        unit = torch.zeros(len(places), size, dtype=torch.float64, device=device)
        found, most = _passed(graph, unit.scatter_(1, places[:, None], 1.0).reshape(-1, *shape))
        columns.append(found - offset)
        largest = max(largest, most)
    slope = torch.cat(columns).T.reshape(graph.outputs, *shape)
    return Affine(slope=slope, offset=offset[0], largest=largest)


def _passed(graph: Graph, x: Tensor) -> tuple[Tensor, float]:
    """Return what an affine graph answers, and the largest number on the way."""
    known, largest = [x], float(x.abs().max())
    for step in graph.steps[1:]:
        found = _answer(step, known)
        known.append(found)
        whole = found[0] if isinstance(found, tuple) else found
        if whole.dtype != torch.float64 or whole.shape[0] != len(x):
            raise NoCertificateError(f"{step.op} ({step.name}) answers {whole.dtype}, {tuple(whole.shape)}.")
        largest = max(largest, float(whole.abs().max()) if whole.numel() else 0.0)
    return known[-1], largest


def _answer(step: Step, known: list[Any]) -> Any:
    def real(value: Any) -> Any:
        if isinstance(value, Ref):
            return known[value.at]
        return [real(each) for each in value] if isinstance(value, list | tuple) else value

    given = {name: real(value) for name, value in step.given.items()}
    if step.op == "getitem":
        return given["self"][0]
    if step.op in _SHAPED:
        whole = (given["self"].shape[0], *step.shape)
        return given["self"].expand(whole) if step.op == "aten.expand" else given["self"].reshape(whole)
    try:
        return getattr(torch.ops.aten, step.op.removeprefix("aten."))(**given)
    except RuntimeError as error:
        raise NoCertificateError(f"{step.op} ({step.name}) cannot be asked again: {str(error).splitlines()[0]}") from None
