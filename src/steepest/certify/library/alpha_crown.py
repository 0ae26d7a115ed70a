"""Linear bounds with fitted slopes."""

from __future__ import annotations

from functools import partial

from steepest.basis.errors import UsageError
from steepest.certify.catalogue import Method, certifier
from steepest.certify.margins import Walker, by_slopes
from steepest.certify.network import network_of


@certifier(
    "alpha-crown",
    source="Xu et al. 2021",
    cost="that of crown + 2 × steps × (undecided margins) B",
    says="never below crown; gains most where many activations are undecided",
)
def alpha_crown(steps: int = 20) -> Method:
    """CROWN, then the slopes below activations are fitted for every margin that is not proven, by Adam."""
    if steps < 1:
        raise UsageError(f"alpha-crown: steps={steps} is not allowed; give at least 1.")
    margins = partial(by_slopes, steps=steps)
    return Method(prepare=lambda model, shape: Walker(network_of(model, shape), margins))
