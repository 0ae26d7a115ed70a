"""A constant of its own for every difference of two outputs."""

from __future__ import annotations

from steepest.certify.catalogue import Method, certifier
from steepest.certify.constants import Stretched
from steepest.certify.contract import Prover
from steepest.certify.pairs import Pairs
from steepest.certify.walk import graph_of
from steepest.models.model import Model


@certifier(
    "lipschitz-pairs",
    source="Tsuzuku, Sato & Sugiyama 2018, proposition 2",
    cost="1 F; once a model, the norm of every layer, and K − 1 rows through the last ones for a label",
    says="exact for linear models under L2; never below `lipschitz-product`, and vacuous where that is by far",
)
def lipschitz_pairs() -> Method:
    """For classes y and k, ‖(e_y − e_k)ᵀ·(the last affine layers)‖₂ times the product of the norms before them."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> Prover:
    graph = graph_of(model, shape)
    return Stretched(graph=graph, constants=Pairs.of_graph(graph).of)
