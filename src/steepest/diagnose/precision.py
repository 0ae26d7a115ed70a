"""The ground around a probe's examples in float64, where rounding hides nothing; its questions are counted too."""

from __future__ import annotations

from dataclasses import replace

import torch

from steepest.diagnose.contract import NotRun
from steepest.diagnose.probe import Probe
from steepest.landscape.terrain import Terrain
from steepest.models.model import Model
from steepest.models.widened import in_float64


def precise(probe: Probe, objective: str = "margin") -> Terrain:
    """Return the probe's terrain, asked in float64 where the network has a twin there, else as it is.

    Raises:
        NotRun: an answer depends on its batch, so that the loss is no function of one example.
    """
    if probe.model.facts.batch_independent is False:
        raise NotRun("an answer depends on the other examples of its batch: see the check batch-dependence")
    ground, twin = probe.terrain(objective), probe.once("float64", lambda: _twin(probe))
    return ground if twin is None else replace(ground, model=twin.asked_by(probe.asked), precision=torch.float64)


def bare(ground: Terrain, probe: Probe) -> Terrain:
    """Return the ground with the model as the user handed it over: without the counter of the probe's questions."""
    rest = tuple(each for each in ground.model.oracles if each is not probe.asked)
    return replace(ground, model=Model(ground.model.network, ground.model.box, facts=ground.model.facts, oracles=rest))


def _twin(probe: Probe) -> Model | None:
    return in_float64(bare(probe.terrain(), probe).model, probe.x)
