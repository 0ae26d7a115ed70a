"""What looks over the shoulder of a training loop, and what it may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from steepest.harden.contract import Classroom, Lesson, Taught


class Answer(Enum):
    """What the loop does about a sign."""

    GO_ON = "go on"
    ROLL_BACK = "roll back and take another method"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Something that a watch saw.

    Attributes:
        name: of the alarm, one word or two.
        says: what was seen, in one sentence with its numbers.
        answer: what the loop does.
        method: the call with which training goes on after a return; None: the loop's own next remedy.
        numbers: what was measured.
    """

    name: str
    says: str
    answer: Answer = Answer.GO_ON
    method: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


class Watch(Protocol):
    """Looks at a training after every step.

    What it remembers from step to step it keeps in `room.kept`, under names that begin with "watch.": the loop
    saves that in checkpoints, takes it back when it rolls back, and clears it when another method takes over.
    """

    def look(self, room: Classroom, lesson: Lesson, taught: Taught) -> Sign | None:
        """Return what was seen after a step, or None; network, buffers and random state are as they were."""
