"""The oldest certificate: the product of the layers' norms."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.certify.catalogue import Method, certifier
from steepest.certify.constants import Stretched
from steepest.certify.contract import Prover
from steepest.certify.pairs import Pairs
from steepest.certify.walk import graph_of
from steepest.models.model import Model


@certifier(
    "lipschitz-product",
    source="Szegedy et al. 2014; Tsuzuku, Sato & Sugiyama 2018",
    cost="1 F; once a model, the norm of every layer",
    says="vacuous for networks that were not trained for it: the norms of many layers multiply",
)
def lipschitz_product() -> Method:
    """One L2 constant L of the whole network: a margin falls by at most √2·L for each unit of Euclidean distance."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> Prover:
    graph = graph_of(model, shape)
    steepest = Pairs.of_graph(graph).steepest

    def constants(y: Tensor) -> Tensor:
        return torch.full((len(y), graph.outputs), steepest, dtype=torch.float64)

    return Stretched(graph=graph, constants=constants)
