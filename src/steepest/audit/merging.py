"""What the full protocol found on a sample of the survivors, put into the records of the cascade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from steepest.audit.contract import RECORD

ASSURANCE = "assurance"
"""The stage of the full protocol, in the ledger and in `broken_by`."""

_SUMS, _SIZES = ("forwards", "backwards", "unconfirmed"), ("radius", "radius_gauge")
_POINT = ("adversarial_prediction", "gauge", "margin")
_CHANGED = ("broken", "broken_by", "status", *_SUMS, *_SIZES, *_POINT)


def merged(table: pa.Table, sample: pa.Table) -> pa.Table:
    """Return the records with those of a sample added: passes add up, the worse point and the smaller success stay.

    What the sample broke is broken by the assurance, also where the model was wrong at x when asked once more.
    """
    place = {example: row for row, example in enumerate(table["example_id"].to_pylist())}
    columns = {name: table[name].to_pylist() for name in _CHANGED}
    for new in sample.to_pylist():
        row = place[new["example_id"]]
        for name, value in _both({name: columns[name][row] for name in _CHANGED}, new).items():
            columns[name][row] = value
    for name, values in columns.items():
        index, field = table.schema.get_field_index(name), RECORD.field(name)
        table = table.set_column(index, field, pa.array(values, field.type))
    return table


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    known = [[size for size in (old[name], new[name]) if size is not None] for name in _SIZES]
    worse = new["broken"] or _margin(new) < _margin(old)
    # A search that was not blind is one more reason to trust the example; one that met no finite number is none.
    said = new["status"] if new["status"] in ("ok", "nonfinite") or old["status"] == "zero_gradient" else old["status"]
    return {
        "broken": new["broken"],
        "broken_by": ASSURANCE if new["broken"] else None,
        "status": said,
        **{name: old[name] + new[name] for name in _SUMS},
        **{name: min(sizes, default=None) for name, sizes in zip(_SIZES, known, strict=True)},
        **{name: new[name] if worse else old[name] for name in _POINT},
    }


def _margin(row: Mapping[str, Any]) -> float:
    return float("inf") if row["margin"] is None else float(row["margin"])
