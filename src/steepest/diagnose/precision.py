"""The ground around a probe's examples in float64, where rounding hides nothing; its questions are counted too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from steepest.basis.tensors import largest
from steepest.diagnose.contract import NotRun
from steepest.diagnose.probe import Probe
from steepest.landscape.terrain import Terrain
from steepest.models.model import Model
from steepest.models.widened import in_float64

T = TypeVar("T")

ROUNDINGS, CLEAR = 32, 0.01
"""Where so many units in the last place of the largest output are a hundredth of the promised gain, rounding may show.
"""


def precise(probe: Probe, objective: str = "margin") -> Terrain:
    """Return the probe's terrain, asked in float64 where the network has a twin there, else as it is.

    Raises:
        NotRun: an answer depends on its batch, so that the loss is no function of one example.
    """
    if probe.model.facts.batch_independent is False:
        raise NotRun("an answer depends on the other examples of its batch: see the check batch-dependence")
    ground, twin = probe.terrain(objective), probe.once("float64", lambda: _twin(probe))
    return ground if twin is None else replace(ground, model=twin.asked_by(probe.asked), precision=torch.float64)


def clear(probe: Probe, rows: Tensor, measure: Callable[[Terrain, Tensor], T]) -> T:
    """Return what `measure` finds of the margin at some examples, in float64 where rounding may show.

    Elsewhere in the model's own precision: a processor convolves in float64 several times slower, and most examples
    need none of it.

    Args:
        measure: from a ground and the rows of the probe that it is of to a dataclass of tensors, or to one tensor,
            each with these rows first.
    """
    wide = precise(probe)  # refuses before anything is asked
    again = doubtful(probe)[rows].nonzero().squeeze(1)
    if wide.precision is None or again.numel() == rows.numel():
        return measure(wide.rows(rows), rows)
    rough = measure(probe.terrain().rows(rows), rows)
    return patched(rough, again, measure(wide.rows(rows[again]), rows[again])) if again.numel() else rough


def doubtful(probe: Probe) -> Tensor:
    """Return bool [N]: rounding of the outputs may be over 1 % of what the margin's gradient promises, or all of it."""
    here = probe.at_x("margin")
    assert here.gradient is not None
    noise = ROUNDINGS * torch.finfo(here.outputs.dtype).eps * largest(here.outputs).double()
    return ~(noise < CLEAR * probe.region.support(here.gradient))


def patched(rough: T, rows: Tensor, fine: T) -> T:
    """Return `rough` with the examples `rows` as in `fine`.

    >>> patched(torch.tensor([1.0, 2.0]), torch.tensor([1]), torch.tensor([3.0]))
    tensor([1., 3.])
    """
    held: Any = rough
    if isinstance(held, Tensor):
        held = held.clone()
        held[rows] = torch.as_tensor(fine).to(held.dtype)
    else:
        parts = ((each.name, getattr(held, each.name), getattr(fine, each.name)) for each in fields(held))
        held = replace(held, **{name: patched(whole, rows, part) for name, whole, part in parts})
    made: T = held
    return made


def bare(ground: Terrain, probe: Probe) -> Terrain:
    """Return the ground with the model as the user handed it over: without the counter of the probe's questions."""
    rest = tuple(each for each in ground.model.oracles if each is not probe.asked)
    return replace(ground, model=Model(ground.model.network, ground.model.box, facts=ground.model.facts, oracles=rest))


def _twin(probe: Probe) -> Model | None:
    return in_float64(bare(probe.terrain(), probe).model, probe.x)
