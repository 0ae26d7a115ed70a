"""What is known of an example from both sides: the largest size that is proven, the smallest that breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.audit.contract import Stage

Rows = dict[str, NDArray[Any]]

DECIDED, OPEN, ROUNDING = "decided", "open", "rounding"
"""Of an example: broken or proven; neither; broken inside what is proven, in the model's precision alone."""

SHOWN = 200
"""So many examples of a run are listed one by one in its summary."""


def bracketed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its `bracket` and its `ratio`.

    >>> row = {"broken": True, "proven_by": None, "rounding": False, "radius": 0.3, "proven_radius": 0.2}
    >>> found = bracketed(row); found["bracket"], round(found["ratio"], 6)
    ('decided', 1.5)
    """
    word = DECIDED if row["broken"] or row["proven_by"] is not None else OPEN
    low, high = row["proven_radius"], row["radius"]
    ratio = high / low if high is not None and low > 0 else None
    return {**row, "bracket": ROUNDING if row["rounding"] else word, "ratio": ratio}


def proven_sizes(table: pa.Table, count: int) -> Tensor:
    """Return the proven size of every example of the data by its id, in units of the largest budget; 0 where none."""
    found = torch.zeros(count, dtype=torch.float64)
    found[torch.from_numpy(table["example_id"].to_numpy().copy())] = torch.from_numpy(
        table["proven_gauge"].to_numpy().copy()
    )
    return found


def certifiers(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return {name, entered, certified, seconds} of every certifier: counts at the largest ε, seconds over all."""
    asked = [stage for stage in stages if stage.proven is not None]
    return [
        {
            "name": name,
            "entered": last.entered,
            "certified": last.proven,
            "seconds": sum(stage.seconds for stage in asked if stage.name == name),
        }
        for name, last in {stage.name: stage for stage in asked}.items()
    ]


def without_certificate(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return {name, why} of every certifier that could say nothing about the model."""
    silent = {stage.name: stage for stage in stages if stage.certifier and stage.proven is None and stage.notes}
    return [{"name": name, "why": stage.notes[0].partition(": ")[2]} for name, stage in silent.items()]


def bracket(rows: Rows, robust: NDArray[Any], certified: NDArray[Any]) -> dict[str, int]:
    """Return how many examples are robust at least and at most, and how many are decided."""
    decided = (rows["broken"] | certified) & ~rows["rounding"]
    return {"lower": int(certified.sum()), "upper": int(robust.sum()), "exact": int(decided.sum())}


def ranked(table: pa.Table) -> list[dict[str, Any]]:
    """Return both sides of examples that are right at x, those with the smallest ratio first, at most `SHOWN`."""
    names = ("example_id", "label", "broken", "broken_by", "proven_by", "proven_radius", "radius", "rounding")
    rows = [bracketed(row) for row in table.select(list(names)).to_pylist() if row["broken_by"] != "clean"]
    rows.sort(key=lambda row: (row["ratio"] is None, row["ratio"] or -row["proven_radius"], row["example_id"]))
    kept = ("example_id", "label", "proven_radius", "radius", "ratio", "bracket")
    return [{name: row[name] for name in kept} for row in rows[:SHOWN]]


def ratios(rows: Rows) -> dict[str, Any]:
    """Return how far apart both sides are, over the examples of which both are known."""
    low, high = rows["proven_radius"].astype(float), rows["radius"].astype(float)
    both = (low > 0) & np.isfinite(high)
    found = high[both] / low[both]
    quartiles = np.quantile(found, [0.25, 0.5, 0.75]).tolist() if found.size else None
    return {"found": int(both.sum()), "quartiles": quartiles}
