"""Lower bounds of linear functions of a network's values, carried backwards through its steps to the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.grounds import Ground, dot, magnitude
from steepest.certify.network import Bent, Network, Range, Relaxed

SLACK = 1e-9
"""Of the sizes of all terms of a bound: moved down by more than float64 rounds."""

_MEMORY = 2**19
"""About so many float64 numbers has a step's value for the rows of one pass: what is in between stays in the cache."""


_SMALL = 2000
"""Networks with at most so many values in bent steps are small."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a pass backwards found.

    Attributes:
        value: the lower bound of each row, [M].
        at_input: the linear function of the input below it, [M, *features].
        met: by bent step, the row's coefficients at its answer, where they were asked for.
    """

    value: Tensor
    at_input: Tensor
    met: dict[int, Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What is known of the values of a network over a ground, one row per example.

    Attributes:
        ranges: of every step, intervals.
        relaxed: linear bounds of every bent step over its source's range.
    """

    network: Network
    ground: Ground
    ranges: dict[int, Range]
    relaxed: dict[int, Relaxed] = field(default_factory=dict)

    @classmethod
    def by_intervals(cls, network: Network, ground: Ground, known: Mapping[int, Range] | None = None) -> Bounds:
        """Return interval bounds, closer where `known` says so; nothing else is asked."""
        made = cls(network, ground, network.ranges(ground.low, ground.high, dict(known or {})))
        for at in network.bent:
            made.relax(at)
        return made

    def relax(self, at: int) -> None:
        """Take the linear bounds of bent step `at` from the range of its source."""
        self.relaxed[at] = self.network.bent[at].relaxed(*self.ranges[self.network.source(at)])

    def lower(
        self,
        a: Tensor,
        owner: Tensor,
        at: int,
        relaxed: Mapping[int, Relaxed] | None = None,
        extra: Mapping[int, Tensor] | None = None,
        *,
        intervals: bool = False,
        keep: bool = False,
    ) -> Carried:
        """Return lower bounds of ⟨a, value of step `at`⟩ for rows a [M, *shape] of the examples `owner` [M].

        Args:
            relaxed: linear bounds that take the place of those known, for each row.
            extra: added to a row's coefficients at the step of this number (multipliers of what a split demands).
            intervals: stop at bent steps, whose intervals are taken (interval arithmetic).
            keep: return what was met at bent steps.
        """
        network, steps = self.network, self.network.graph.steps
        here: dict[int, Tensor] = {at: a}
        value = torch.zeros(len(a), dtype=torch.float64)
        size = torch.zeros(len(a), dtype=torch.float64)
        met: dict[int, Tensor] = {}
        for number in range(at, 0, -1):
            row = here.pop(number, None)
            if row is None:
                continue
            if extra and number in extra:
                row = row + extra[number]
            if number in network.affine:
                affine = network.affine[number]
                if affine.bias is not None:
                    added = dot(row, affine.bias.expand(1, *row.shape[1:]))
                    value, size = value + added, size + added.detach().abs()
                parts = zip(affine.sources, affine.pull(row), strict=True)
            elif intervals:
                low, high = self.ranges[number]
                middle, reach = ((high + low) / 2)[owner], ((high - low) / 2)[owner]
                added = dot(row, middle) - dot(row.abs(), reach)
                value, size = value + added, size + added.detach().abs()
                continue
            else:
                if keep:
                    met[number] = row
                bound = relaxed[number] if relaxed and number in relaxed else self.relaxed[number]
                part, added = bound.pull(row, owner)
                value, size = value + added, size + added.detach().abs()
                parts = zip(steps[number].sources, (part,), strict=True)
            for source, part in parts:
                here[source] = here[source] + part if source in here else part
        at_input = here.get(0)
        if at_input is None:
            at_input = a.new_zeros(len(a), *steps[0].shape)
        else:
            value = value + self.ground.least(at_input, owner)
            size = size + magnitude(at_input, self.ground, owner)
        return Carried(value=value - SLACK * size, at_input=at_input, met=met)

    def tightened(self) -> Bounds:
        """Return these bounds with the range of every bent step's source bounded by passes of its own (CROWN).

        Only values whose step is not straight between the bounds known so far are asked about.
        """
        network = self.network
        made = Bounds(network, self.ground, dict(self.ranges))
        exact = self._exact()
        known: dict[int, Range] = {}
        done = 0
        for at in sorted(network.bent):
            source = network.source(at)
            if source not in known:
                fresh = network.ranges(self.ground.low, self.ground.high, known, until=source)
                made.ranges.update({n: _closer(self.ranges[n], r) for n, r in fresh.items() if n >= done})
                if source not in exact:
                    made.ranges[source] = made._asked(source, *made.ranges[source], network.bent[at])
                known[source], done = made.ranges[source], source
            made.relax(at)
        fresh = network.ranges(self.ground.low, self.ground.high, known)
        made.ranges.update({n: _closer(self.ranges[n], r) for n, r in fresh.items() if n > done})
        return made

    def _exact(self) -> set[int]:
        """Return the steps whose intervals are exact: at most one mixing step behind the coordinates of a product."""
        if not self.ground.boxed:
            return set()
        mixed = {0: 0}
        for at, affine in self.network.affine.items():
            if all(source in mixed for source in affine.sources):
                mixed[at] = max(mixed[s] for s in affine.sources) + affine.mixing
        return {at for at, count in mixed.items() if count <= 1}

    def _asked(self, at: int, low: Tensor, high: Tensor, bent: Bent) -> Range:
        """Return the range of step `at`, bounded by passes where its bent step is not straight.

        First the end that is closer to deciding a value is asked about; the other one where that did not do it.
        """
        shape = self.network.graph.steps[at].shape
        low, high = low.clone(), high.clone()
        for part in torch.split(torch.arange(len(low)), self._together()):
            here = self if len(part) == len(low) else self.rows(part)
            ends = flat(low)[part], flat(high)[part]
            loose = ~bent.straight(*ends)
            above = loose & (ends[0] + ends[1] < 0)
            for chosen in ((above, loose & ~above), (loose & ~above, above)):
                for marked, sign in zip(chosen, (-1.0, 1.0), strict=True):
                    here._ask(at, marked & ~bent.straight(*ends), sign, ends)
            flat(low)[part], flat(high)[part] = ends
        # Two sound bounds may cross by their rounding alone.
        return torch.minimum(low, high).reshape(-1, *shape), torch.maximum(low, high).reshape(-1, *shape)

    def _together(self) -> int:
        """Return how many examples' values are asked about in one pass.

        Alone, an example's slopes are one row for all its values and are not copied; but the passes of a small network
        would be too short.
        """
        return max(1, len(self.ground.low)) if self.network.neurons <= _SMALL else 1

    def _ask(self, at: int, marked: Tensor, sign: float, ends: Range) -> None:
        """Move the lower ends (sign 1) or the upper ends (−1) of the values `marked` [N, n] inwards, in place."""
        owners, places = marked.nonzero(as_tuple=True)
        end = ends[0 if sign > 0 else 1]
        for block in torch.split(torch.arange(len(owners)), self.rows_at_once()):
            owner, place = owners[block], places[block]
            found, known = sign * self._unit(at, owner, place, sign), end[owner, place]
            end[owner, place] = torch.maximum(known, found) if sign > 0 else torch.minimum(known, found)

    def _unit(self, at: int, owner: Tensor, place: Tensor, sign: float) -> Tensor:
        """Return lower bounds of sign · (single values of step `at`), [M]."""
        affine, shape = self.network.affine.get(at), self.network.graph.steps[at].shape
        if affine is not None and affine.rows is not None:
            value = self.lower(sign * affine.rows(place), owner, affine.sources[0]).value
            if affine.bias is None:
                return value
            shift = sign * affine.bias.expand(1, *shape).flatten()[place]
            return value + shift - SLACK * shift.abs()
        unit = torch.zeros(len(place), int(torch.Size(shape).numel()), dtype=torch.float64)
        unit[torch.arange(len(place)), place] = sign
        return self.lower(unit.reshape(-1, *shape), owner, at).value

    def rows(self, index: Tensor) -> Bounds:
        """Return what is known of the examples that `index` selects."""
        ranges = {at: (low[index], high[index]) for at, (low, high) in self.ranges.items()}
        relaxed = {at: bound.rows(index) for at, bound in self.relaxed.items()}
        return Bounds(self.network, self.ground.rows(index), ranges, relaxed)

    def rows_at_once(self) -> int:
        """Return how many rows one pass takes, for the memory that it may use."""
        return max(16, _MEMORY // self.network.widest)


def _closer(one: Range, other: Range) -> Range:
    return torch.maximum(one[0], other[0]), torch.minimum(one[1], other[1])


def margin_rows(y: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Return (e_y − e_k for every k ≠ y, [N·(K − 1), K]; the example of each row).

    >>> margin_rows(torch.tensor([1]), 3)[0]
    tensor([[-1.,  1.,  0.],
            [ 0.,  1., -1.]], dtype=torch.float64)
    """
    others = torch.arange(outputs - 1).expand(len(y), -1)
    others = others + (others >= y[:, None])
    eye = torch.eye(outputs, dtype=torch.float64)
    rows = eye[y][:, None] - eye[others]
    return rows.flatten(0, 1), torch.arange(len(y)).repeat_interleave(outputs - 1)
