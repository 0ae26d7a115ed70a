"""The answer to a property, and what is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

SAT, UNSAT, UNKNOWN = "sat", "unsat", "unknown"

REAL = (
    "unsat speaks of the network in real arithmetic with the weights as they are stored, over every real input of the "
    "box; bounds are computed in float64 and moved outwards by more than their rounding"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether some input in the property's boxes has outputs that the property asks for.

    Attributes:
        answer: "sat", "unsat" or "unknown".
        x: float32 [n], for sat: such an input, inside its box.
        y: [K], for sat: what the network itself answers to x, alone; it meets the property exactly.
        how: what decided, or what was tried.
        reason: for unknown: why nothing was decided.
        boxes: how many boxes were bounded.
        points: how many inputs were tried.
        seconds: spent.

    >>> import steepest as st
    >>> text = '''(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
    ...     (assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= Y_0 (+ Y_1 {})))'''
    >>> net = st.Model(torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False)), box=None)
    >>> _ = net.network[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> [st.verify(net, st.parse_property(text.format(least))).answer for least in (1.99, 2.01)]
    ['sat', 'unsat']
    """

    answer: str
    x: Tensor | None
    y: Tensor | None
    how: str
    reason: str
    boxes: int
    points: int
    seconds: float


class Judge(Protocol):
    """Has the last word on what a network answers to one input."""

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs at one example x [*features], [K]."""
