"""GradAlign: the gradient should keep its direction inside the budget. The house's one gradient of a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from steepest.basis.tensors import flat
from steepest.harden.contract import Classroom, Lesson
from steepest.harden.crafts import PROBE, require_least
from steepest.harden.descent import spared


@final
@dataclass(frozen=True, slots=True)
class GradAlign:
    """λ·mean(1 − cos(∇L(x), ∇L(p))), p uniform in the region; differentiated through ∇L(p) only.

    Rows in which one of the gradients is zero have no direction and do not count.

    Source: Andriushchenko & Flammarion 2020.
    """

    weight: float

    def __post_init__(self) -> None:
        require_least("weight", self.weight, 0)

    def of(self, room: Classroom, lesson: Lesson, slope: Tensor) -> Tensor:
        """Return the term for one batch, on the graph; `slope` is ∇L(x)."""
        point = lesson.region.sample_clipped(lesson.stream, PROBE)
        return self.weight * misalignment(room, point, lesson.y, slope)


def misalignment(room: Classroom, point: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """Return the mean of 1 − cos(slope, ∇L(point)) over the rows that have both directions; 0 if none has."""
    at = point.detach().requires_grad_()
    with spared(room.network), torch.enable_grad():
        loss = cross_entropy(room.outputs(at), y, reduction="sum")
        (there,) = torch.autograd.grad(loss, at, create_graph=True)
    here, other = flat(slope), flat(there)
    sizes = here.norm(dim=1), other.detach().norm(dim=1)
    counts = (sizes[0] > 0) & (sizes[1] > 0)
    # Chosen before the division: a gradient of 0/0 is no number even where it is not used.
    here, other = here[counts], other[counts]
    apart = 1 - (here * other).sum(1) / (here.norm(dim=1) * other.norm(dim=1))
    mean: Tensor = apart.sum() / max(1, apart.shape[0])
    return mean
