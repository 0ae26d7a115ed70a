"""What was found afterwards on some survivors, put into the records of the cascade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from steepest.audit.contract import RECORD

ASSURANCE = "assurance"
"""The stage of the full protocol, in the ledger and in `broken_by`."""

SUMS = ("forwards", "backwards", "unconfirmed")
"""Fields that add up over searches."""

_SIZES = ("radius", "radius_gauge")
_POINT = ("adversarial_prediction", "gauge", "margin")
_CHANGED = ("broken", "broken_by", "rounding", "status", *SUMS, *_SIZES, *_POINT)


MENDED = "mended"
"""The stage of what a search broke that was mended after a diagnosis, where no name of its own is known."""

_MEASURED = ("nonfinite", "zero_gradient", "exhausted", "ok")
"""Statuses, the least trustworthy first."""


def merged(table: pa.Table, sample: pa.Table, stage: str) -> pa.Table:
    """Return the records with those of a later `stage` added: passes add up, the worse point and smaller success stay.

    What it broke is broken by the rung that did, and by the stage where the model was wrong at x when asked once more.
    """
    place = {example: row for row, example in enumerate(table["example_id"].to_pylist())}
    columns = {name: table[name].to_pylist() for name in _CHANGED}
    for new in sample.to_pylist():
        row = place[new["example_id"]]
        for name, value in _both({name: columns[name][row] for name in _CHANGED}, new, stage).items():
            columns[name][row] = value
    for name, values in columns.items():
        index, field = table.schema.get_field_index(name), RECORD.field(name)
        table = table.set_column(index, field, pa.array(values, field.type))
    return table


def _both(old: Mapping[str, Any], new: Mapping[str, Any], stage: str) -> dict[str, Any]:
    known = [[size for size in (old[name], new[name]) if size is not None] for name in _SIZES]
    worse = (new["broken"] and not old["broken"]) or _margin(new) < _margin(old)
    by = new["broken_by"] if new["broken_by"] != "clean" else stage
    by = old["broken_by"] if old["broken"] else by
    return {
        "broken": old["broken"] or new["broken"],
        "rounding": old["rounding"] or new["rounding"],
        "broken_by": by if old["broken"] or new["broken"] else None,
        "status": _said(old["status"], new["status"], stage),
        **{name: old[name] + new[name] for name in SUMS},
        **{name: min(sizes, default=None) for name, sizes in zip(_SIZES, known, strict=True)},
        **{name: new[name] if worse else old[name] for name in _POINT},
    }


def _said(old: str, new: str, stage: str) -> str:
    """A search that was not blind is one more reason to trust the example; one that met no finite number is none.

    A mended search asks elsewhere, so that what the first could not measure may be measured, but not the reverse.
    """
    if stage == MENDED:
        return max(old, new, key=_MEASURED.index)
    return new if new in ("ok", "nonfinite") or old == "zero_gradient" else old


def _margin(row: Mapping[str, Any]) -> float:
    return float("inf") if row["margin"] is None else float(row["margin"])
