"""The folders of trainings: what is known of one, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steepest.app.harden import AFTER, BEFORE, HISTORY
from steepest.audit.api import open_run
from steepest.audit.places import Place
from steepest.basis.errors import SteepestError, UsageError
from steepest.harden.folder import ASKED, Folder
from steepest.harden.records import broke_off
from steepest.report.hardening import PAGE
from steepest.report.wording import percent


def holds_training(place: Place) -> bool:
    """Return whether a training was begun in a folder; trainings lie on disks."""
    return isinstance(place, Path) and (place / ASKED).is_file()


def require_run(given: Place) -> None:
    """Raise for a folder of a training, which holds two runs.

    Raises:
        UsageError: names them, and the training's page.
    """
    if holds_training(given):
        raise UsageError(
            f"{given} holds a training: its runs are {given / AFTER} (the hardened weights) and "
            f"{given / BEFORE}, its page is {given / PAGE}."
        )


def row(folder: Path) -> dict[str, Any]:
    """Return what is known of a training, by the columns of `steepest runs list`.

    A damaged one is told as such, so that it hides no other.
    """
    found: dict[str, Any] = {"kind": "training"}
    try:
        kept = Folder(folder)
        asked, history = kept.asked(), _history(kept)
        found |= {name: asked[name] for name in ("model", "budget")}
        found["method"] = str((history or {}).get("method", asked["method"])).partition("(")[0]
        done = history["epochs"] if history else []
        found |= {"epochs": len(done), "epochs_asked": int(asked["epochs"]), "held_out": _held_out(done)}
        return {**found, **_audited(folder, history, int(asked["epochs"]))}
    except (SteepestError, KeyError, TypeError, ValueError, OSError) as error:
        return {**found, "state": f"damaged ({type(error).__name__})"}


def _history(folder: Folder) -> Mapping[str, Any] | None:
    """What was written at the end of the training, else what its last checkpoint knows."""
    path = folder.path / HISTORY
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return folder.progress()


def _held_out(epochs: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of held-out examples that the most robust epoch left right."""
    return max((each["held"]["robust"] for each in epochs if each["held"] is not None), default=None)


def _audited(folder: Path, history: Mapping[str, Any] | None, epochs: int) -> dict[str, Any]:
    """The audit's numbers where there is one, and the state in words."""
    done = len(history["epochs"]) if history else 0
    stopped = history["stopped"] if history else ""
    if not stopped and done < epochs:
        held = _held_out(history["epochs"] if history else [])
        known = "" if held is None else f", {percent(held)} robust held out"
        return {"state": f"incomplete (epoch {done} of {epochs}{known})"}
    try:
        summary, _ = (open_run(folder / name).summary for name in (AFTER, BEFORE))
    except SteepestError:
        return {"state": "trained, not audited"}
    ended = "broke off" if broke_off(stopped) else "finished"
    numbers = {
        "budget": summary["budget"],
        "n": summary["n"],
        "clean": summary["clean_accuracy"],
        "robust": summary["robust_accuracy"],
    }
    return {**numbers, "state": ended if (folder / PAGE).exists() else "trained, no page"}
