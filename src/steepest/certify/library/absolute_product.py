"""The absolute product: what each coordinate of the input can do to a margin, at most."""

from __future__ import annotations

from torch import Tensor

from steepest.basis.tensors import flat
from steepest.certify.catalogue import Method, certifier
from steepest.certify.constants import Coordinatewise
from steepest.certify.contract import Prover
from steepest.certify.pairs import contrasts, coordinatewise
from steepest.certify.walk import graph_of
from steepest.models.model import Model


@certifier(
    "absolute-product",
    source="Weng et al. 2018 for the constant's use; the product of absolute values is elementary",
    cost="1 F; once a model, K − 1 rows back through the network for a label",
    says="exact for linear models; tighter than the product of L∞ norms, and vacuous for deep networks",
)
def absolute_product() -> Method:
    """z_y − z_k falls by at most Σᵢ cᵢ|pᵢ − xᵢ| with c = |w_y − w_k|ᵀ|W_L−1|…|W₁|, as far as the budget lets them."""
    return Method(prepare=_prepared)


def _prepared(model: Model, shape: tuple[int, ...]) -> Prover:
    graph = graph_of(model, shape)
    known: dict[int, Tensor] = {}

    def constants(label: int) -> Tensor:
        if label not in known:
            known[label] = flat(coordinatewise(graph, contrasts(label, graph.outputs)))
        return known[label]

    constants(0)  # an operation without a rule is named before any example is asked about
    return Coordinatewise(graph=graph, constants=constants)
