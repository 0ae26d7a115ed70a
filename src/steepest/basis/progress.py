"""How long work tells of itself: protocols, so that no room but `app` prints, and numbers may go elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives what a run does while it does it; the command line draws it, the library stays silent."""

    def begin(self, task: str, total: int) -> None:
        """Work named `task` begins; it will count to `total` examples."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` more examples are finished; `note` says what was found so far."""

    def say(self, message: str) -> None:
        """Report one line that a person should read now (a warning, a fact found on load)."""

    def end(self) -> None:
        """Finish the work begun last."""


class Silent:
    """A `Progress` that shows nothing; the default of every library call."""

    def begin(self, task: str, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class Tracker(Protocol):
    """Receives the numbers of a training for a board on which trainings are compared (TensorBoard, MLflow)."""

    def begin(self, name: str, asked: Mapping[str, str]) -> None:
        """A training called `name` begins, or goes on; `asked` is what was asked of it."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers by name, measured after `step` steps."""

    def end(self) -> None:
        """Finish: everything told must be kept."""
