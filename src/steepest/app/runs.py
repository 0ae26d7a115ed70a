"""`steepest runs` and `steepest report`: what is kept in the folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steepest.app import audit, console, exports
from steepest.audit.api import open_run
from steepest.audit.parts import merge
from steepest.audit.places import Place, place_of
from steepest.audit.store import RunFolder
from steepest.audit.tally import shown
from steepest.basis.errors import IncompleteError, SteepestError, UsageError
from steepest.report.run import report
from steepest.report.wording import percent

FINISHED = "finished"


def write_report(run: str, outputs: Sequence[str]) -> None:
    """Write the page of a run, or what the outputs' endings ask for, and print where it is; raises as `st.report`."""
    paths = exports.checked(outputs, audit.ENDINGS)
    found = open_run(run)
    if not paths:
        console.say(str(report(found)))
    audit.export(found, paths)
    for path in paths:
        console.say(str(path))


def show_run(run: str, *, as_json: bool) -> None:
    """Print the result of a finished run; raises as `open_run`."""
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
    """Print one line for each run in a folder.

    Raises:
        UsageError: there is no such folder.
    """
    root = place_of(folder)
    if not root.is_dir():
        raise UsageError(f"the folder {folder!r} does not exist: give the folder that holds runs, or run an audit.")
    entries = [root, *sorted((entry for entry in root.iterdir() if entry.is_dir()), key=str)]
    rows = [_row(entry) for entry in entries if (entry / "manifest.json").exists()]
    if as_json:
        console.show_json({"runs": rows})
        return
    head = ("folder", "model", "data", "budget", "n", "clean", "robust", "state")
    console.show_table(head, [_cells(row) for row in rows])


def _row(entry: Place) -> dict[str, Any]:
    """Return what is known of a run; a damaged one is listed as such, so that it hides no other."""
    row: dict[str, Any] = dict.fromkeys(("model", "data", "budget", "n", "clean", "robust"))
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
    return {"folder": str(entry), **row}


def _cells(row: dict[str, Any]) -> list[str]:
    texts = [str(row[key] if row[key] is not None else "–") for key in ("folder", "model", "data", "budget", "n")]
    shares = ["–" if row[key] is None else percent(row[key]) for key in ("clean", "robust")]
    return [*texts, *shares, row["state"]]
