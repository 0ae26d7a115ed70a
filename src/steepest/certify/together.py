"""CROWN's ranges of many examples at once: for small networks, where the passes of single examples are too short."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.certify.linear import SLACK, Bounds
from steepest.certify.network import Range

MOST_VALUES = 2000
"""Networks with at most so many values in bent steps are small."""


def tightened_together(bounds: Bounds) -> Bounds:
    """Return what `Bounds.tightened` does, up to rounding, with all examples in the same passes."""
    network = bounds.network
    made = Bounds(network, bounds.ground, dict(bounds.ranges))
    known: dict[int, Range] = {}
    for at in sorted(network.bent):
        source = network.source(at)
        if source not in known:
            found = network.ranges(bounds.ground.low, bounds.ground.high, known, until=source)
            low, high = (end.clone() for end in found[source])
            loose = ~network.bent[at].straight(low, high)
            for sign in (1.0, -1.0):
                _ask(made, source, loose, sign, (low, high))
                loose &= ~network.bent[at].straight(torch.minimum(low, high), high)
            # Two sound bounds may cross by their rounding alone.
            known[source] = torch.minimum(low, high), torch.maximum(low, high)
            made.ranges[source] = known[source]
        made.relax(at)
    made.ranges.update(network.ranges(bounds.ground.low, bounds.ground.high, known))
    return made


def _ask(bounds: Bounds, at: int, loose: Tensor, sign: float, ends: Range) -> None:
    """Move the lower ends (sign 1) or the upper ends (−1) of the values marked in `loose` inwards, in place."""
    owners, places = loose.flatten(1).nonzero(as_tuple=True)
    end = ends[0 if sign > 0 else 1].flatten(1)
    blocks = torch.split(torch.arange(len(owners)), bounds.rows_at_once())
    for block in blocks:
        owner, place = owners[block], places[block]
        found = sign * _unit(bounds, at, owner, place, sign)
        held = end[owner, place]
        end[owner, place] = torch.maximum(held, found) if sign > 0 else torch.minimum(held, found)


def _unit(bounds: Bounds, at: int, owner: Tensor, place: Tensor, sign: float) -> Tensor:
    """Return lower bounds of sign · (single values of step `at`), [M]."""
    affine, shape = bounds.network.affine.get(at), bounds.network.graph.steps[at].shape
    if affine is not None and affine.rows is not None:
        value = bounds.lower(sign * affine.rows(place), owner, affine.sources[0]).value
        if affine.bias is None:
            return value
        shift = sign * affine.bias.expand(1, *shape).flatten()[place]
        return value + shift - SLACK * shift.abs()
    unit = torch.zeros(len(place), int(torch.Size(shape).numel()), dtype=torch.float64)
    unit[torch.arange(len(place)), place] = sign
    return bounds.lower(unit.reshape(-1, *shape), owner, at).value
