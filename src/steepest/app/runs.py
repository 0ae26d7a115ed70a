"""`steepest runs` and `steepest report`: what is kept in the folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steepest.app import audit, console, exports, trainings
from steepest.audit.api import open_run
from steepest.audit.parts import merge
from steepest.audit.places import Place, place_of
from steepest.audit.store import RunFolder
from steepest.audit.tally import shown
from steepest.basis.errors import IncompleteError, SteepestError, UsageError
from steepest.report.run import report
from steepest.report.wording import percent

AUDIT, TRAINING, FINISHED = "audit", "training", "finished"
_COLUMNS = ("folder", "kind", "model", "data", "budget", "method", "epochs", "n", "clean", "robust", "state")
_OF_TRAININGS = ("kind", "method", "epochs")
_MORE = ("epochs_asked", "held_out")
"""What `--json` says of trainings besides."""


def write_report(run: str, outputs: Sequence[str]) -> None:
    """Write the page of a run, or what the outputs' endings ask for, and print where it is; raises as `st.report`."""
    paths = exports.checked(outputs, audit.ENDINGS)
    trainings.require_run(place_of(run))
    found = open_run(run)
    if not paths:
        console.say(str(report(found)))
    audit.export(found, paths)
    for path in paths:
        console.say(str(path))


def show_run(run: str, *, as_json: bool) -> None:
    """Print the result of a finished run; raises as `open_run`."""
    trainings.require_run(place_of(run))
    found = open_run(run)
    if as_json:
        console.show_json(found.summary)
        return
    console.say(found.summary["command"])
    page = found.folder / "report.html"
    audit.show(found, [page] if page.exists() else [])


def merge_runs(out: str, parts: list[str], *, as_json: bool) -> None:
    """Join the parts of a run, write its page and print the result; raises as `merge`."""
    found = open_run(merge(out, parts).path)
    page = report(found)
    if as_json:
        console.show_json(found.summary)
    else:
        audit.show(found, [page])


def list_runs(folder: str, *, as_json: bool) -> None:
    """Print one line for each run and each training in a folder.

    Raises:
        UsageError: there is no such folder.
    """
    root = place_of(folder)
    if not root.is_dir():
        raise UsageError(f"the folder {folder!r} does not exist: give the folder that holds runs, or run an audit.")
    entries = [root, *sorted((entry for entry in root.iterdir() if entry.is_dir()), key=str)]
    rows = [row for row in map(_row, entries) if row is not None]
    if as_json:
        console.show_json({"runs": rows})
        return
    trained = any(row["kind"] == TRAINING for row in rows)
    head = [name for name in _COLUMNS if trained or name not in _OF_TRAININGS]
    console.show_table(head, [[_cell(name, row) for name in head] for row in rows])


def _row(entry: Place) -> dict[str, Any] | None:
    """Return what is known of a run or a training, None of another folder.

    A damaged one is listed as such, so that it hides no other.
    """
    row: dict[str, Any] = dict.fromkeys((*_COLUMNS, *_MORE)) | {"folder": str(entry), "kind": AUDIT}
    if isinstance(entry, Path) and trainings.holds_training(entry):
        return row | trainings.row(entry)
    if not (entry / "manifest.json").exists():
        return None
    try:
        manifest = RunFolder(entry).manifest()
        row |= {
            "model": manifest["model"]["source"],
            "data": manifest["data"]["source"],
            "budget": shown(manifest)[-1],
            "n": manifest["data"]["n"],
        }
        try:
            summary = open_run(entry).summary
            row |= {"clean": summary["clean_accuracy"], "robust": summary["robust_accuracy"], "state": FINISHED}
        except IncompleteError:
            shards = manifest["shards"]
            left = len(RunFolder(entry).missing(shards, manifest["plan_hash"]))
            row["state"] = (
                f"incomplete ({shards - left} of {shards} shards{'' if left else ', no sample of survivors'})"
            )
    except (SteepestError, KeyError, OSError) as error:
        row["state"] = f"damaged ({type(error).__name__})"
    return row


def _cell(name: str, row: dict[str, Any]) -> str:
    if row[name] is None:
        return "–"
    return percent(row[name]) if name in ("clean", "robust") else str(row[name])
