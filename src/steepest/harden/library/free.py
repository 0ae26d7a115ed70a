"""Free adversarial training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.crafts import require_least
from steepest.harden.descent import advance, differentiate
from steepest.harden.losses import require_smoothing
from steepest.harden.recipe import method

_DELTA = "free: delta"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """One batch several times; every backward moves the weights down and the point up; see `Method`."""

    replays: int
    step: float
    smoothing: float = 0.0
    call: str = ""
    budgets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_least("replays", self.replays, 1)
        require_least("step", self.step, 0)
        require_smoothing(self.smoothing)

    def teach(self, room: Classroom, lesson: Lesson) -> Taught:
        """See `Method.teach`; `loss`, `point` and `outputs` are those of the last replay."""
        delta, passes = carried(room, lesson.x), 0
        while True:
            point = lesson.region.project(lesson.x + delta).detach().requires_grad_()
            outputs = room.outputs(point)
            value = differentiate(room, cross_entropy(outputs, lesson.y, label_smoothing=self.smoothing))
            passes += 1
            slope = point.grad
            assert slope is not None
            if advance(room, value):
                moved = lesson.region.ascend(point.detach(), slope, self.step)
                delta.copy_(moved - lesson.x)
            if passes == self.replays or value != value:
                break
        return Taught(
            loss=value,
            point=point.detach(),
            outputs=outputs.detach(),
            clean=None,
            forwards=passes,
            backwards=passes,
        )


def carried(room: Classroom, x: Tensor) -> Tensor:
    """Return the perturbations that the last batch left behind, [N, *features], to be changed in place."""
    kept = room.kept.get(_DELTA)
    if kept is None or kept.shape[1:] != x.shape[1:] or kept.device != x.device:
        kept = x.new_zeros(0, *x.shape[1:])
    if len(kept) < len(x):
        kept = torch.cat([kept, torch.zeros_like(x[len(kept) :])])
    room.kept[_DELTA] = kept
    return kept[: len(x)]


@method(
    "free",
    source="Shafahi et al. 2019",
    cost="replays × (F + B)",
    says="one backward serves weights and point: divide the epochs by `replays` for the price of plain training",
)
def free(replays: int = 8, step: float = 1.0, smoothing: float = 0.0) -> Free:
    """The same batch `replays` times; the perturbation is carried on, from batch to batch too.

    Batch-norm statistics and the optimiser change at every replay.
    """
    return Free(replays=replays, step=step, smoothing=smoothing)
