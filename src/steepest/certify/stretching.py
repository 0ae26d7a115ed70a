"""How much each step of a graph can stretch a difference, and all of them from the input on: bounds in L2 and L∞."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.affine import AFFINE, Affine, affine_of
from steepest.certify.norms import EXACT, convolution_norm, matrix_norm
from steepest.certify.steepness import curved_norms
from steepest.models.traced import Graph, Step

_DENSE = 2**22
"""So many numbers a convolution's matrix may have to be written out."""

_APART = ("aten.cat", "aten.stack", "aten.slice_scatter", "aten.select_scatter", "aten.maximum", "aten.minimum")
"""Operations whose sources' changes add up in squares: they go to different places, or the larger one counts."""

_SCALES = (
    "aten.mul",
    "aten.div",
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit_no_training",
    "aten.cudnn_batch_norm",
    "aten.batch_norm",
)
_SHIFTS = ("getitem", "aten.add", "aten.sub", "aten.rsub", "aten.neg")
"""Steps that scale, and steps that only move or turn the sign of, every value of one source."""

_WEIGHTS = {"aten.convolution": "weight", "aten.mm": "mat2", "aten.addmm": "mat2"}

_ROUNDING = 1e-12
"""Sums of absolute values are moved upwards by more than their rounding, relatively."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepBound:
    """What one step of the network can do to a difference, at most.

    Attributes:
        name: the step's in the trace; `op`: its operation.
        own: ‖Δ of its answer‖₂ over the largest ‖Δ‖₂ of what it takes; 1 for what only moves values.
        largest: the same in L∞: the largest absolute row sum of an affine step's matrix.
        total: ‖Δ of its answer‖₂/‖Δx‖₂, the bound of all the way from the input. It may grow by less than `own` where
            two steps are known together.
        share: its part of the logarithm of all that makes `total` grow: which step makes the network stretchy.
    """

    name: str
    op: str
    own: float
    largest: float
    total: float
    share: float


def stretching(graph: Graph) -> tuple[StepBound, ...]:
    """Return a bound for every step, in the order of the graph; the input is left out.

    Along a chain norms multiply; values that are added add their bounds, values that are put side by side add their
    squares. What scales the channels of a convolution or a matrix product (batch norm) is bounded together with it.

    Raises:
        NoCertificateError: an operation has no rule; names it.

    >>> import steepest as st
    >>> from steepest.models.traced import traced
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    >>> [(each.op, round(each.own, 6), round(each.largest, 6)) for each in stretching(traced(st.Model(net), (2,)))]
    [('aten.mm', 5.0, 4.0), ('aten.relu', 1.0, 1.0)]
    """
    totals, found, grown = [1.0], [], []
    for at in range(1, len(graph.steps)):
        step = graph.steps[at]
        norms, largest = step_norms(graph, at)
        reached = [norm * totals[source] for norm, source in zip(norms, step.sources, strict=True)]
        total = (math.hypot(*reached) if step.op in _APART else math.fsum(reached)) * (1 + _ROUNDING)
        before = max(totals[source] for source in step.sources)
        own = total / before if before else 0.0
        behind, together = _together(graph, at)
        total = min(total, together * totals[behind])
        totals.append(total)
        grown.append(_amplifies(total / before if before else 0.0))
        found.append(StepBound(name=step.name, op=step.op, own=own, largest=largest, total=total, share=0.0))
    amplified = math.fsum(grown) or 1.0
    return tuple(replace(each, share=part / amplified) for each, part in zip(found, grown, strict=True))


def _amplifies(growth: float) -> float:
    """Return its logarithm, and exactly 0 where that is rounding or shrinks."""
    return math.log(growth) if growth > 1 + 1e-9 else 0.0


def step_norms(graph: Graph, at: int) -> tuple[tuple[float, ...], float]:
    """Return ‖Wᵢ‖₂ from above for each source of a step, or what bounds its slopes, and its norm in L∞."""
    step, affine = graph.steps[at], affine_of(graph, at)
    if affine is None:
        norms = curved_norms(graph, at)
        return norms, 1.0 if step.op.startswith("aten.max_pool") else max(norms)
    largest = float(affine.spread(*_ones(affine)).max()) * (1 + _ROUNDING) if affine.shapes else 0.0
    sums = _schur(graph, at, affine)
    return tuple(min(one, _own_norm(step, affine)) for one in sums), largest


def absolute_pull(graph: Graph, at: int, weight: Tensor) -> tuple[Tensor, ...]:
    """Return |Wᵢ|ᵀ·weight for each source of an affine step, weight ≥ 0 [M, *shape]."""
    step = graph.steps[at]
    # The operation with the sizes of its constants is |W|, up to one sign for each source.
    sized = replace(step, given={name: _sized(value) for name, value in step.given.items()})
    found = AFFINE[step.op](sized, tuple(graph.steps[source].shape for source in step.sources))
    assert found is not None
    return tuple(part.abs() for part in found.pull(weight))


def _together(graph: Graph, at: int) -> tuple[int, float]:
    """Return (s, ‖D·W‖₂) where a step scales channels by D and W is what it scales, from step s; else (0, ∞)."""
    scale: Tensor | float = 1.0
    here, step = at, graph.steps[at]
    if step.op not in _SCALES:
        return 0, math.inf
    while step.op in (*_SCALES, *_SHIFTS):
        affine = affine_of(graph, here)
        if affine is None or len(affine.sources) != 1 or affine.shapes[0] != step.shape:
            return 0, math.inf
        scale = scale * affine.spread(torch.ones(1, *step.shape, dtype=torch.float64))[0]
        here, step = affine.sources[0], graph.steps[affine.sources[0]]
    if here == 0 or not isinstance(scale, Tensor):
        return 0, math.inf
    channels = scale.flatten(1) if scale.ndim > 1 else scale[:, None]
    factor, name = channels[:, 0], _WEIGHTS.get(step.op)
    if name is None or step.given.get("transposed") or not bool((channels == factor[:, None]).all()):
        return 0, math.inf
    weight = step.given[name]
    if not isinstance(weight, Tensor):
        return 0, math.inf
    # The outputs' axis of a convolution's weight is its first, of a matrix product's its last.
    along = factor if name == "mat2" else factor.reshape(-1, *[1] * (weight.ndim - 1))
    scaled = replace(step, given={**step.given, name: weight * along})
    whole = AFFINE[step.op](scaled, tuple(graph.steps[source].shape for source in step.sources))
    if whole is None:
        return 0, math.inf
    return step.sources[0], _own_norm(scaled, whole) * (1 + _ROUNDING)


def _sized(value: object) -> object:
    return value.abs() if isinstance(value, Tensor) and value.is_floating_point() else value


def _ones(affine: Affine) -> list[Tensor]:
    return [torch.ones(1, *shape, dtype=torch.float64) for shape in affine.shapes]


def _schur(graph: Graph, at: int, affine: Affine) -> tuple[float, ...]:
    """Return √(largest row sum · largest column sum) of |Wᵢ| for each source: it bounds ‖Wᵢ‖₂."""
    ones = _ones(affine)
    answer = affine.spread(*ones)
    columns = absolute_pull(graph, at, torch.ones_like(answer))
    found = []
    for place, column in enumerate(columns):
        alone = [one if other == place else torch.zeros_like(one) for other, one in enumerate(ones)]
        rows = answer if len(ones) == 1 else affine.spread(*alone)
        found.append(math.sqrt(float(rows.max()) * float(column.max())) * (1 + _ROUNDING) if rows.numel() else 0.0)
    return tuple(found)


def _own_norm(step: Step, affine: Affine) -> float:
    """Return a bound that knows more of the operation than its sums; ∞ where there is none."""
    if step.op in ("aten.mm", "aten.addmm"):
        weight = step.constant("mat2")
        assert weight is not None
        return matrix_norm(weight) * abs(float(step.given.get("alpha", 1)))
    if step.op != "aten.convolution":
        return math.inf
    into, out = (int(torch.Size(shape).numel()) for shape in (affine.shapes[0], step.shape))
    if min(into, out) <= EXACT and into * out <= _DENSE:
        return matrix_norm(dense(affine, step.shape))
    weight = step.constant("weight")
    assert weight is not None
    # A transposed convolution is the transpose of the convolution with the same weights, whose input is its answer.
    spatial = (step.shape if step.given["transposed"] else affine.shapes[0])[1:]
    return convolution_norm(
        weight,
        spatial,
        stride=step.given["stride"],
        dilation=step.given["dilation"],
        groups=step.given["groups"],
    )


def dense(affine: Affine, shape: tuple[int, ...]) -> Tensor:
    """Return the matrix [out, in] of an affine step with one source, whose answer has `shape`."""
    into, out = (int(torch.Size(size).numel()) for size in (affine.shapes[0], shape))
    if out <= into:
        (rows,) = affine.pull(torch.eye(out, dtype=torch.float64).reshape(out, *shape))
        return flat(rows)
    columns = affine.value(torch.eye(into, dtype=torch.float64).reshape(into, *affine.shapes[0]))
    return flat(columns if affine.bias is None else columns - affine.bias).mT
