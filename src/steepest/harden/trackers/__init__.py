"""Boards that trainings are told to; each needs a package of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from steepest.basis.errors import UsageError, unknown
from steepest.basis.progress import Tracker

TRACKERS = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}


def trackers_of(names: str | Iterable[str], folder: Path) -> list[Tracker]:
    """Return the trackers named, e.g. "tensorboard,mlflow".

    Args:
        folder: of the training; TensorBoard writes there.

    Raises:
        UsageError: an unknown name, or a package that is not installed; names the extra.

    >>> trackers_of("", Path("runs"))
    []
    """
    listed = names.split(",") if isinstance(names, str) else names
    return [_tracker(name.strip(), folder) for name in listed if name.strip()]


def _tracker(name: str, folder: Path) -> Tracker:
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    try:
        module = importlib.import_module(f"{__name__}.{name}")
        made: Tracker = getattr(module, TRACKERS[name])(folder)
    except ImportError as error:
        raise UsageError(
            f"the tracker {name!r} needs a package that is not installed ({error}): pip install 'steepest[{name}]'."
        ) from None
    return made
