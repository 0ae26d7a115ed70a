"""Branch and bound over undecided activations: what one bound leaves open, many smaller problems may decide."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.linear import Bounds
from steepest.certify.network import Elementwise, Network, Range
from steepest.certify.programs import least_on_piece
from steepest.certify.slopes import Fitted, fitted

_AT_ONCE = 64
"""Problems that are split in one round."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problems:
    """Margins of one example over parts of its ground, one row per part.

    Attributes:
        row: int64 [P], which margin.
        value: [P], its lower bound over the part; +∞ where the part is empty.
        ranges: of the sources of the bent steps, [P, *shape], cut by the splits.
        signs: by source, +1 where the value is at least 0 in this part, −1 where at most 0, else 0.
        source, place: the activation that is split next, by its source and its place there; −1: none is undecided.
    """

    row: Tensor
    value: Tensor
    ranges: dict[int, Range]
    signs: dict[int, Tensor]
    source: Tensor
    place: Tensor

    def rows(self, index: Tensor) -> Problems:
        """Return the problems that `index` selects."""
        return Problems(
            row=self.row[index],
            value=self.value[index],
            ranges={at: (low[index], high[index]) for at, (low, high) in self.ranges.items()},
            signs={at: sign[index] for at, sign in self.signs.items()},
            source=self.source[index],
            place=self.place[index],
        )

    def halves(self) -> Problems:
        """Return every problem twice: first with the chosen value at least 0, then with it at most 0."""
        made = self.rows(torch.arange(len(self.row)).repeat(2))
        positive = torch.arange(len(made.row)) < len(self.row)
        for at, (low, high) in made.ranges.items():
            mine = (made.source == at).nonzero().squeeze(1)
            up, down = mine[positive[mine]], mine[~positive[mine]]
            flat(low)[up, made.place[up]] = flat(low)[up, made.place[up]].clamp_min(0)
            flat(high)[down, made.place[down]] = flat(high)[down, made.place[down]].clamp_max(0)
            flat(made.signs[at])[up, made.place[up]] = 1
            flat(made.signs[at])[down, made.place[down]] = -1
        return made

    @staticmethod
    def joined(parts: list[Problems]) -> Problems:
        """Return all problems of several groups."""

        def each(take: Callable[[Problems], Tensor]) -> Tensor:
            return torch.cat([take(part) for part in parts])

        def side(at: int, end: int) -> Tensor:
            return each(lambda part: part.ranges[at][end])

        return Problems(
            row=each(lambda part: part.row),
            value=each(lambda part: part.value),
            ranges={at: (side(at, 0), side(at, 1)) for at in parts[0].ranges},
            signs={at: torch.cat([part.signs[at] for part in parts]) for at in parts[0].signs},
            source=each(lambda part: part.source),
            place=each(lambda part: part.place),
        )


def _splittable(network: Network) -> dict[int, int]:
    """Return the bent steps that can be split, and their sources."""
    return {
        at: network.source(at)
        for at, bent in network.bent.items()
        if isinstance(bent, Elementwise) and bent.curve.kinks == (0.0,) and not bent.curve.bend
    }


def searched(bounds: Bounds, a: Tensor, values: Tensor, *, seconds: float, steps: int) -> Tensor:
    """Return lower bounds of the margins a [R, K] of one example after splitting for so long, [R].

    The worst open problem is split first. A margin is proven when all its parts are; the bound that is returned is
    the least of its parts', so it is never below `values`. Where nothing undecided is left in a part, a linear
    program over it gives the exact minimum, or a lower bound where other steps stay relaxed.

    Args:
        bounds: of the one example.
        values: lower bounds that are known.
    """
    network, end = bounds.network, time.monotonic() + seconds
    row = (values <= 0).nonzero().squeeze(1)
    sources = sorted(set(_splittable(network).values()))
    if not row.numel() or not sources:
        return values
    pool = _bounded(bounds, a, _whole(bounds, row, values[row], sources), steps)
    closed = torch.full_like(values, torch.inf)
    closed[values > 0] = values[values > 0]
    while True:
        done = (pool.value > 0) | (pool.source < 0)
        closed = closed.scatter_reduce(0, pool.row[done], pool.value[done], "amin")
        pool = pool.rows((~done).nonzero().squeeze(1))
        # A margin of which one part cannot be decided is lost, and so is the example.
        if not len(pool.row) or time.monotonic() > end or bool((closed <= 0).any()):
            break
        order = pool.value.argsort()
        chosen, others = order[:_AT_ONCE], order[_AT_ONCE:]
        pool = Problems.joined([pool.rows(others), _bounded(bounds, a, pool.rows(chosen).halves(), steps)])
    return values.maximum(closed.scatter_reduce(0, pool.row, pool.value, "amin"))


def _whole(bounds: Bounds, row: Tensor, value: Tensor, sources: list[int]) -> Problems:
    """Return the problems of which nothing is split yet."""

    def copies(side: Tensor) -> Tensor:
        return side.expand(len(row), *side.shape[1:]).clone()

    ranges = {at: (copies(bounds.ranges[at][0]), copies(bounds.ranges[at][1])) for at in sources}
    signs = {at: torch.zeros_like(low, dtype=torch.int8) for at, (low, _) in ranges.items()}
    nothing = torch.zeros_like(row)
    return Problems(row=row, value=value, ranges=ranges, signs=signs, source=nothing, place=nothing)


def _bounded(bounds: Bounds, a: Tensor, problems: Problems, steps: int) -> Problems:
    """Return the problems with their bounds, and with what is to be split next."""
    network = bounds.network
    empty = torch.zeros(len(problems.row), dtype=torch.bool)
    known = {}
    for at, (low, high) in problems.ranges.items():
        empty |= flat(low > high).any(1)
        known[at] = torch.minimum(low, high), high
    here = Bounds.by_intervals(network, bounds.ground.rows(torch.zeros_like(problems.row)), known)
    for at in problems.ranges:
        low, high = here.ranges[at]
        empty |= flat(low > high).any(1)
        here.ranges[at] = torch.minimum(low, high), torch.maximum(low, high)
    for at in network.bent:
        here.relax(at)
    signs = {at: sign.double() for at, sign in problems.signs.items()}
    found = fitted(here, a[problems.row], torch.arange(len(problems.row)), network.last, steps=steps, splits=signs)
    value = found.value.maximum(problems.value).masked_fill(empty, torch.inf)
    source, place = _undecided(here, found)
    for index in ((source < 0) & (value <= 0)).nonzero().squeeze(1).tolist():
        value[index] = max(value[index].item(), least_on_piece(here, index, a[problems.row[index]], signs))
    return Problems(
        row=problems.row,
        value=value,
        ranges={at: here.ranges[at] for at in problems.ranges},
        signs=problems.signs,
        source=source,
        place=place,
    )


def _undecided(bounds: Bounds, found: Fitted) -> tuple[Tensor, Tensor]:
    """Return the source and place of the activation whose relaxation costs a bound most; −1 where all are decided.

    What a line above costs is its height at 0 times the coefficient; of a line below, its largest distance.
    """
    best = torch.full_like(found.value, -1.0)
    source, place = torch.full(best.shape, -1), torch.full(best.shape, -1)
    for at, origin in _splittable(bounds.network).items():
        low, high = (flat(end) for end in bounds.ranges[origin])
        a = flat(found.met[at])
        width = (high - low).clamp_min(1e-12)
        gap = -low * high / width
        cost = torch.where(a < 0, -a * gap, a * torch.minimum(-low, high) / 2)
        cost = torch.where((low < 0) & (high > 0), cost, -1.0)
        most, where = cost.max(1)
        better = most > best
        best = torch.where(better, most, best)
        source, place = torch.where(better, origin, source), torch.where(better, where, place)
    return source, place
