"""Linear bounds over interval bounds."""

from __future__ import annotations

from steepest.certify.catalogue import Method, certifier
from steepest.certify.margins import Walker, by_one_pass
from steepest.certify.network import network_of


@certifier(
    "crown-ibp",
    source="Zhang et al. 2020",
    cost="2 F + (K − 1) B",
    says="never below ibp; tight where activations are mostly decided by intervals",
)
def crown_ibp() -> Method:
    """One linear pass backwards for each margin, over interval bounds of the activations."""
    return Method(prepare=lambda model, shape: Walker(network_of(model, shape), by_one_pass))
