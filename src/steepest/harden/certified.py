"""Training on proven bounds instead of found points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from steepest.basis.errors import UsageError
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.crafts import require_least, widened
from steepest.harden.descent import advance, differentiate
from steepest.harden.intervals import Span, Walk, margins


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """κ·CE(z) + (1 − κ)·CE(−m̲): right at x, and provably so in the region; see `Method`.

    m̲ bounds the margins z_y − z_k from below over the hull of the budget inside the box. Over the first `ramp` of the
    training the budget grows from nothing to all of it, and κ falls from 1 to `kappa`.

    Attributes:
        tighter: another bound, in whose place the intervals' comes as the ramp ends; None for intervals alone.
        passes: of one step, as forwards and as backwards.
    """

    kappa: float
    ramp: float
    passes: int
    tighter: Callable[[Walk, Tensor], Tensor] | None = None
    call: str = ""
    budgets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("kappa", self.kappa), ("ramp", self.ramp)):
            require_least(name, value, 0)
            if value > 1:
                raise UsageError(f"{name}={value!r} is not allowed: give a share, from 0 to 1.")

    def teach(self, room: Classroom, lesson: Lesson) -> Taught:
        """See `Method.teach`; the point is x, since no other is looked at.

        Raises:
            NoCertificateError: a layer has no rule; names it.
        """
        grown = min(1.0, lesson.share / self.ramp) if self.ramp else 1.0
        with room.computing():
            walk = Walk(network_of(room), hull(lesson, grown))
            worst = self._bound(walk, lesson.y, grown).float()
            outputs = walk.last.value.float()
        kappa = 1 - (1 - self.kappa) * grown
        loss = kappa * cross_entropy(outputs, lesson.y) + (1 - kappa) * cross_entropy(-worst, lesson.y)
        value = differentiate(room, loss)
        advance(room, value)
        seen = outputs.detach()
        return Taught(loss=value, point=lesson.x, outputs=seen, clean=seen, forwards=self.passes, backwards=self.passes)

    def _bound(self, walk: Walk, y: Tensor, grown: float) -> Tensor:
        plain = margins(walk, y)
        if self.tighter is None or grown == 1:
            return plain
        return grown * plain + (1 - grown) * self.tighter(walk, y)


def hull(lesson: Lesson, factor: float) -> Span:
    """Return the span of the inputs: x, and how far a multiple of the budget goes inside the box."""
    low, high = widened(lesson.region, factor).bounds
    x = lesson.x
    return Span(x, torch.minimum(low, x).expand_as(x), torch.maximum(high, x).expand_as(x))


def network_of(room: Classroom) -> nn.Module:
    """Return the network whose layers are walked through: the one that nobody has wrapped."""
    found = room.model.network
    return found if isinstance(found, nn.Module) else room.network
