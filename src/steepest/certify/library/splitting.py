"""Branch and bound over activations."""

from __future__ import annotations

from functools import partial

from steepest.basis.errors import UsageError
from steepest.certify.catalogue import Method, certifier
from steepest.certify.margins import Walker, by_splitting
from steepest.certify.network import network_of


@certifier(
    "splitting",
    source="Wang et al. 2021",
    cost="that of alpha-crown, and the given seconds of every example that it leaves open",
    says="never below alpha-crown; complete for networks of ReLUs without pooling by maxima, if there is time enough",
)
def splitting(seconds: float = 10.0, steps: int = 10) -> Method:
    """α-CROWN, then ReLUs are split into their two pieces, the dearest first, until all parts are proven.

    Multipliers of the splits are fitted with the slopes (β-CROWN); where every activation of a part is decided, a
    linear program gives the exact minimum. The seconds are those of the clock, so the result may depend on the machine.
    """
    if seconds <= 0 or steps < 1:
        raise UsageError(
            f"splitting: seconds={seconds}, steps={steps} are not allowed; give a time and at least 1 step."
        )
    margins = partial(by_splitting, seconds=seconds, steps=steps)
    return Method(prepare=lambda model, shape: Walker(network_of(model, shape), margins))
