"""A traced graph made ready for bounds: every step an affine map, a curve, or a maximum over windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.basis.tensors import flat
from steepest.certify.affine import Affine, affine_of
from steepest.certify.curves import Curve, Lines, Slope, curve_of, outwards
from steepest.certify.grounds import dot
from steepest.certify.size import hidden_units
from steepest.certify.walk import graph_of
from steepest.models.model import Model
from steepest.models.traced import Graph, Step

Range = tuple[Tensor, Tensor]
"""(low, high) of a step's values, float64 [N, *shape]."""


class Relaxed(Protocol):
    """Linear bounds of one bent step over given ranges."""

    def pull(self, a: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a′ [M, *source shape], c [M]) with ⟨a, h(z)⟩ ≥ ⟨a′, z⟩ + c for all z in the range of `owner`."""

    def rows(self, index: Tensor) -> Relaxed:
        """Return the bounds of the examples that `index` selects."""


@final
@dataclass(frozen=True, slots=True)
class Between:
    """A curve between its lines. Slopes may be one row for each row of a, instead of one for each example."""

    lines: Lines
    by_row: bool = False

    def pull(self, a: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """See `Relaxed.pull`: a⁺ takes the line below, a⁻ the one above, so a·below + a⁻·(above − below)."""
        below, above, low, high = self.lines.below, self.lines.above, self.lines.low, self.lines.high
        if not self.by_row and len(below) > 1:
            below, above, low, high = (part[owner] for part in (below, above, low, high))
        negative = a.clamp_max(0)
        moved = torch.addcmul(a * below, negative, above - below)
        return moved, dot(a, low) + dot(negative, high - low)

    def rows(self, index: Tensor) -> Between:
        """See `Relaxed.rows`."""
        lines = self.lines
        parts = (part[index] for part in (lines.below, lines.low, lines.above, lines.high))
        below, low, above, high = parts
        return Between(Lines(below=below, low=low, above=above, high=high), self.by_row)


@final
@dataclass(frozen=True, slots=True)
class Maximum:
    """The maximum over windows: at least the entry with the largest lower end, at most the largest upper end.

    Where that entry's lower end is above all other upper ends, it is the maximum.
    """

    first: Tensor  # int64 [N, outputs], the place of the entry in the flattened source
    most: Tensor  # [N, outputs]
    sure: Tensor  # bool [N, outputs]
    shape: tuple[int, ...]

    def pull(self, a: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """See `Relaxed.pull`."""
        row = flat(a)
        passed = torch.where((row > 0) | self.sure[owner], row, 0)
        size = int(torch.Size(self.shape).numel())
        made = torch.zeros(len(a), size, dtype=a.dtype).scatter_add(1, self.first[owner], passed)
        return made.reshape(len(a), *self.shape), ((row - passed) * self.most[owner]).sum(1)

    def rows(self, index: Tensor) -> Maximum:
        """See `Relaxed.rows`."""
        return Maximum(self.first[index], self.most[index], self.sure[index], self.shape)


class Bent(Protocol):
    """A step that is not affine."""

    def range(self, low: Tensor, high: Tensor) -> Range:
        """Return bounds of its answers from bounds of its source."""

    def straight(self, low: Tensor, high: Tensor) -> Tensor:
        """Return bool: where closer bounds of the source would change nothing."""

    def relaxed(self, low: Tensor, high: Tensor) -> Relaxed:
        """Return its linear bounds."""


@final
@dataclass(frozen=True, slots=True)
class Elementwise:
    """A curve, applied to every number."""

    curve: Curve

    def range(self, low: Tensor, high: Tensor) -> Range:
        """See `Bent.range`."""
        return self.curve.range(low, high)

    def straight(self, low: Tensor, high: Tensor) -> Tensor:
        """See `Bent.straight`."""
        return self.curve.straight(low, high)

    def relaxed(self, low: Tensor, high: Tensor, below: Slope = None, above: Slope = None) -> Between:
        """See `Bent.relaxed`; with slopes of one's own, one row for each row of the ranges."""
        return Between(self.curve.lines(low, high, below, above))


@final
@dataclass(frozen=True, slots=True)
class Windows:
    """max_pool2d."""

    step: Step
    source: tuple[int, ...]

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given = [self.step.given[name] for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
        values, places = torch.ops.aten.max_pool2d_with_indices(x, *given)
        # Places count within a channel.
        channel = torch.arange(self.source[0]).reshape(1, -1, 1, 1) * (self.source[1] * self.source[2])
        return values, flat(places + channel)

    def range(self, low: Tensor, high: Tensor) -> Range:
        """See `Bent.range`."""
        return self._pooled(low)[0], self._pooled(high)[0]

    def straight(self, low: Tensor, high: Tensor) -> Tensor:
        """See `Bent.straight`."""
        return low == high

    def relaxed(self, low: Tensor, high: Tensor) -> Maximum:
        """See `Bent.relaxed`."""
        least, first = self._pooled(low)
        most, _ = self._pooled(high)
        # The largest upper end among the others: windows may share an entry, so each is asked without its own.
        others = self._others(high, first)
        return Maximum(first, flat(most), flat(least) >= others, tuple(low.shape[1:]))

    def _others(self, high: Tensor, first: Tensor) -> Tensor:
        kernel, stride, padding, dilation = (
            self.step.given[name] for name in ("kernel_size", "stride", "padding", "dilation")
        )
        stride = stride or kernel
        places = torch.arange(1, high[0].numel() + 1, dtype=torch.float64).reshape(1, *self.source)
        if self.step.given["ceil_mode"]:
            return torch.full_like(first, torch.inf, dtype=torch.float64)
        count = kernel[0] * kernel[1]

        def windows(x: Tensor, value: float) -> Tensor:
            padded = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=value)
            cut = torch.nn.functional.unfold(padded, kernel, dilation=dilation, stride=stride)
            return cut.reshape(len(x), self.source[0], count, -1)

        index, values = windows(places, 0.0), windows(high, -torch.inf)
        own = first.reshape(len(high), self.source[0], 1, -1) + 1
        return values.masked_fill(index == own, -torch.inf).amax(2).reshape(len(high), -1)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The steps of a graph as maps; the outputs are those of the last step.

    Attributes:
        affine, bent: by the number of the step; every step but the input is in one of them.
    """

    graph: Graph
    affine: dict[int, Affine]
    bent: dict[int, Bent]

    @property
    def last(self) -> int:
        """The number of the output step."""
        return len(self.graph.steps) - 1

    @property
    def widest(self) -> int:
        """The most values that one step has for one example."""
        return max(int(torch.Size(step.shape).numel()) for step in self.graph.steps)

    @property
    def neurons(self) -> int:
        """How many values of an example go through bent steps."""
        return hidden_units(self.graph)

    def source(self, at: int) -> int:
        """Return the one step that bent step `at` takes."""
        return self.graph.steps[at].sources[0]

    def ranges(self, low: Tensor, high: Tensor, known: dict[int, Range], until: int | None = None) -> dict[int, Range]:
        """Return interval bounds of all steps up to `until`, closer where `known` has closer ones."""
        found = {0: (low, high)}
        for at in range(1, (self.last if until is None else until) + 1):
            found[at] = self._range(at, found)
            if at in known:
                mine, other = found[at], known[at]
                found[at] = torch.maximum(mine[0], other[0]), torch.minimum(mine[1], other[1])
        return found

    def _range(self, at: int, found: dict[int, Range]) -> Range:
        if at not in self.affine:
            return self.bent[at].range(*found[self.source(at)])
        affine = self.affine[at]
        ends = [found[source] for source in affine.sources]
        middle = affine.value(*((low + high) / 2 for low, high in ends))
        reach = affine.spread(*((high - low) / 2 for low, high in ends))
        return outwards(middle - reach, middle + reach)


def network_of(model: Model, shape: tuple[int, ...]) -> Network:
    """Return the network of a model, checked against the model at points of its box.

    A softmax over the outputs is left out: it changes no order.

    Raises:
        NoCertificateError: names every operation without a rule, or says that graph and model disagree.
    """
    graph = graph_of(model, shape)
    affine: dict[int, Affine] = {}
    bent: dict[int, Bent] = {}
    unknown: dict[str, str] = {}
    for at, step in enumerate(graph.steps[1:], 1):
        found, curve = affine_of(graph, at), curve_of(step)
        if found is not None:
            affine[at] = found
        elif curve is not None:
            bent[at] = Elementwise(curve)
        elif step.op == "aten.max_pool2d_with_indices":
            bent[at] = Windows(step, graph.steps[step.sources[0]].shape)
        else:
            unknown[step.op] = step.name
    if unknown:
        named = ", ".join(f"{op} ({name})" for op, name in unknown.items())
        raise NoCertificateError(
            f"no rule for {named}: {model.facts.source} gets no certificate from bounds. Rules exist for linear and "
            "convolution layers, pooling, batch-norm in evaluation mode, sums, concatenations, ReLU, LeakyReLU, GELU, "
            "SiLU, tanh, sigmoid and clamps."
        )
    return Network(graph, affine, bent)
