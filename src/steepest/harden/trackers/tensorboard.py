"""Numbers of a training for TensorBoard: event files in the folder `tensorboard` of the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from torch.utils.tensorboard import SummaryWriter


@final
class TensorBoard:
    """A `Tracker` that writes event files; see them with `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"

    def begin(self, name: str, asked: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        self._writer = SummaryWriter(str(self._folder))
        rows = "\n".join(f"| {key} | {value} |" for key, value in asked.items())
        self._writer.add_text(name, f"| asked | |\n| --- | --- |\n{rows}")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def end(self) -> None:
        """See `Tracker.end`."""
        self._writer.close()
