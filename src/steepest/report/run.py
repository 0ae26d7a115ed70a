"""From a run's folder to its page."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steepest.audit.api import AuditRun, open_run
from steepest.audit.comparison import Comparison
from steepest.audit.places import Place
from steepest.audit.store import RunFolder
from steepest.audit.tally import name_of
from steepest.basis.errors import DataError
from steepest.report import comparison, gallery
from steepest.report.contract import Triple
from steepest.report.page import put, write

_KEYS = ("ids", "labels", "clean", "images", "predictions")


def report(run: AuditRun | Comparison | str | Place, path: str | Path | None = None) -> Place:
    """Write the page of a finished run, a pure function of its folder, and return where it is.

    Args:
        run: what `st.audit` or `st.compare` returned, or a run's folder, also s3:// or gs://.
        path: of the page; if left out report.html in the run's folder, comparison.html in that of a comparison.

    Raises:
        UsageError: the folder is not a run, or the page cannot be written there.
        IncompleteError: the run is not finished; the same command again finishes it.
        DataError: the run's pictures are damaged.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    >>> run = st.audit(st.Model(net), "digits", st.Linf(0.1), preset="quick", limit=15, allow_chance=True)
    >>> report(run).name
    'report.html'
    """
    if isinstance(run, Comparison):
        place = run.folder / comparison.PAGE if path is None else Path(path)
        return put(place, comparison.render(run.to_record()))
    opened = run if isinstance(run, AuditRun) else open_run(run)
    folder = RunFolder(opened.folder)
    page = folder.path / "report.html" if path is None else Path(path)
    manifest = folder.manifest()
    return write(page, opened.summary, manifest, triples(folder, manifest))


def triples(folder: RunFolder, manifest: Mapping[str, Any]) -> list[Triple]:
    """Return the broken examples that a run kept for its gallery, at most 48, spread over all it kept."""
    records = {row["example_id"]: row for row in folder.table(manifest["shards"]).to_pylist()}
    files = folder.arrays("gallery-*.npz")
    found = [
        _triple(example, records[int(example["ids"])], manifest)
        for file in files[:: max(1, len(files) // gallery.MOST)]
        for example in _examples(file)
        if records.get(int(example["ids"]), {}).get("broken")
    ]
    return found[: gallery.MOST]


def _examples(file: Place) -> Iterator[dict[str, Any]]:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as held:
            arrays = {key: held[key] for key in held.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{file} is damaged: delete it and the report will do without it.") from None
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise DataError(f"{file} lacks {', '.join(missing)}: delete it and the report will do without it.")
    for row in range(len(arrays["ids"])):
        yield {key: array[row] for key, array in arrays.items()}


def _triple(example: Mapping[str, Any], record: Mapping[str, Any], manifest: Mapping[str, Any]) -> Triple:
    names: Sequence[str] | None = manifest["data"]["class_names"]
    lower, upper = manifest.get("limits") or _range(example)
    return Triple(
        example_id=int(example["ids"]),
        label_name=name_of(int(example["labels"]), names),
        clean_prediction_name=name_of(record["clean_prediction"], names),
        adversarial_prediction_name=name_of(int(example["predictions"]), names),
        stage=record["broken_by"] or "",
        radius=float(example["radius"]) if "radius" in example else float("nan"),
        clean=example["clean"],
        adversarial=example["images"],
        lower=lower,
        upper=upper,
    )


def _range(example: Mapping[str, Any]) -> tuple[float, float]:
    """Where inputs have no limits, the picture's own least and largest value are black and white."""
    lower = min(float(example[key].min()) for key in ("clean", "images"))
    upper = max(float(example[key].max()) for key in ("clean", "images"))
    return lower, upper if upper > lower else lower + 1
