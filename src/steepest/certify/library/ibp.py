"""Interval bound propagation."""

from __future__ import annotations

from steepest.certify.catalogue import Method, certifier
from steepest.certify.margins import Walker, by_intervals
from steepest.certify.network import network_of


@certifier(
    "ibp",
    source="Gowal et al. 2018",
    cost="2 F",
    says="tight on networks that were trained with it and on one affine layer; vacuous on most others",
)
def ibp() -> Method:
    """Interval arithmetic layer by layer; margins are bounded as whole rows from the last activation on."""
    return Method(prepare=lambda model, shape: Walker(network_of(model, shape), by_intervals))
