"""Linear bounds of every activation, and of the margins."""

from __future__ import annotations

from steepest.certify.catalogue import Method, certifier
from steepest.certify.margins import Walker, by_passes
from steepest.certify.network import network_of


@certifier(
    "crown",
    source="Zhang et al. 2018",
    cost="2 F + (K − 1 + 2 × undecided activations) B",
    says="never below crown-ibp; tight for small budgets and networks of some thousand activations",
)
def crown() -> Method:
    """Linear passes backwards from every activation that intervals leave undecided, then from each margin.

    A ReLU between l < 0 < u lies below the line from (l, 0) to (u, u), and above 0 or z, whichever loses the smaller
    area; other functions lie between lines whose distance to them is measured.
    """
    return Method(prepare=lambda model, shape: Walker(network_of(model, shape), by_passes))
