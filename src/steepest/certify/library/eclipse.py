"""Layers that do not stretch the same direction together: ECLipsE-Fast."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.certify.catalogue import Method, certifier
from steepest.certify.constants import Stretched
from steepest.certify.contract import Prover
from steepest.certify.eclipse import carried, eclipse_bounds
from steepest.certify.pairs import contrasts
from steepest.certify.walk import graph_of
from steepest.models.model import Model


@certifier(
    "eclipse",
    source="Xu & Sivaranjani 2024",
    cost="1 F; once a model, one factorisation a layer of at most 4,096 values",
    says="never above the product of norms, and exact for linear models under L2; chains with rising activations only",
)
def eclipse() -> Method:
    """One matrix carried from layer to layer, which knows in which directions the layers before have stretched."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> Prover:
    graph = graph_of(model, shape)
    weight, inverse = carried(graph)
    known: dict[int, Tensor] = {}

    def constants(y: Tensor) -> Tensor:
        for label in set(y.tolist()) - set(known):
            known[label] = eclipse_bounds(weight, inverse, contrasts(label, graph.outputs))
        return torch.stack([known[label] for label in y.tolist()]) if len(y) else weight.new_zeros(0, graph.outputs)

    return Stretched(graph=graph, constants=constants)
