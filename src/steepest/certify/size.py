"""How large a network is to a certifier."""

from __future__ import annotations

import math

from steepest.certify.affine import AFFINE
from steepest.models.traced import Graph


def hidden_units(graph: Graph) -> int:
    """Return how many numbers of an example come out of operations that are no affine map: what bounds must relax."""
    return sum(math.prod(step.shape) for step in graph.steps[1:] if step.op not in AFFINE)
