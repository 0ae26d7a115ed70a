"""From records to numbers: accuracies, intervals, classes, the curve. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from steepest.audit.assurance import protocol
from steepest.audit.brackets import bracket, certifiers, ranked, ratios, without_certificate
from steepest.audit.contract import BLIND, Stage
from steepest.audit.statistics import most_missed
from steepest.basis.shares import CONFIDENCE, interval
from steepest.diagnose.verdict import verdict

Rows = dict[str, NDArray[Any]]


def tally(
    table: pa.Table, stages: Sequence[Stage], manifest: dict[str, Any], sample: pa.Table | None = None
) -> dict[str, Any]:
    """Return the summary of a run as one JSON-ready dict; what was not measured is None, never 0.

    An example is robust here if nothing tried broke it and its search met no number that is not finite; that is an
    upper bound on the truth. A certified one is robust and proven to be: a lower bound. `sample` holds what the full
    protocol found on some survivors, which `table` has taken in.
    """
    rows = columns(table)
    names = manifest["data"]["class_names"]
    robust = ~rows["broken"] & (rows["status"] != "nonfinite")
    correct = (rows["clean_prediction"] == rows["label"]) & ~(np.equal(rows["broken_by"], "clean"))
    count = len(robust)
    certified = robust & np.array([by is not None for by in rows["proven_by"]], dtype=bool)
    tried = any(stage.proven is not None for stage in stages)
    return {
        "n": count,
        "classes": manifest["model"]["classes"],
        "clean_accuracy": _share(correct),
        "clean_interval": interval(int(correct.sum()), count),
        "robust_accuracy": _share(robust),
        "robust_interval": interval(int(robust.sum()), count),
        "robust_count": int(robust.sum()),
        "certified_accuracy": _share(certified) if tried else None,
        "certified_count": int(certified.sum()) if tried else None,
        "certifiers": certifiers(stages),
        "without_certificate": without_certificate(stages),
        "bracket": bracket(rows, robust, certified) if tried else None,
        "brackets": ranked(table) if tried else [],
        "ratios": ratios(rows) if tried else None,
        "largest_proven": float(rows["proven_radius"].max(initial=0.0)) if tried else None,
        "assured": None
        if sample is None
        else _assured(sample, rows["example_id"][robust & ~certified], robust, manifest),
        "budget": shown(manifest)[-1],
        "budget_unit": manifest["budget_unit"],
        "epsilon": manifest["epsilons"][-1],
        "sizes": _sizes(rows, manifest, tried=tried),
        "preset": manifest["plan"]["preset"],
        "objective": manifest["plan"]["objective"],
        "target": manifest["plan"]["target"],
        "seed": manifest["plan"]["seed"],
        "stages": [asdict(stage) for stage in stages],
        "per_class": _classes(rows["label"], correct, robust, names),
        "curve": _curve(table, rows, manifest, stages),
        "confusion": _confusion(rows, names, manifest["model"]["classes"]),
        "radius": _radius(rows),
        "status": {word: int((rows["status"] == word).sum()) for word in sorted(set(rows["status"]))},
        "blind": {word: int(((rows["status"] == word) & ~rows["broken"] & ~certified).sum()) for word in BLIND},
        "unconfirmed": int(rows["unconfirmed"].sum()),
        "notes": [
            *manifest["notes"],
            *dict.fromkeys(f"{s.name}: {note}" for s in stages if not s.certifier for note in s.notes),
            *_unrepeated(int(rows["unconfirmed"].sum()), twin=bool(manifest["plan"]["prepared"])),
        ],
        "precision": manifest["plan"]["precision"],
        "preparation": manifest["preparation"],
        "run": manifest["run"],
        "command": manifest["command"],
    }


def columns(table: pa.Table) -> Rows:
    """Return the columns of records that hold one value for each example."""
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names if name != "fgsm_broken"}


def judged(diagnosis: Mapping[str, Any] | None, first: pa.Table | None) -> dict[str, Any]:
    """Return the summary's part on how far it can be believed; `first` holds the records before the mending."""
    found = diagnosis or {"verdict": verdict([]).to_record(), "findings": [], "notes": [], "changes": []}
    return {
        "verdict": found["verdict"],
        "findings": found["findings"],
        "diagnosis_notes": found["notes"],
        "scenery": found.get("scenery"),
        "mended": None if first is None else {"changes": found["changes"], "first": _first(first)},
    }


def _first(table: pa.Table) -> dict[str, Any]:
    """Return the robust accuracy as first measured."""
    robust = ~table["broken"].to_numpy(zero_copy_only=False) & np.not_equal(table["status"], "nonfinite")
    return {
        "robust_accuracy": _share(robust),
        "robust_interval": interval(int(robust.sum()), len(robust)),
        "robust_count": int(robust.sum()),
    }


def _assured(
    sample: pa.Table, survivors: NDArray[Any], robust: NDArray[Any], manifest: dict[str, Any]
) -> dict[str, Any]:
    """Return what the sample of survivors says of all of them; `survivors` are the ids of those that are left.

    An example on which the protocol met no finite number counts as lost, as it does everywhere.
    """
    drawn, broken = len(sample), int(np.sum(sample["broken"].to_numpy(zero_copy_only=False)))
    lost = drawn - int(np.isin(sample["example_id"].to_numpy(), survivors).sum())
    before = len(survivors) + lost
    least = int(robust.sum()) - (most_missed(lost, drawn, before) - lost)
    return {
        "protocol": protocol(manifest["model"]["deterministic"]).call,
        "drawn": drawn,
        "survivors": before,
        "broken": broken,
        "unmeasured": lost - broken,
        "confidence": CONFIDENCE,
        "at_least": least,
        "accuracy_at_least": least / len(robust) if len(robust) else None,
    }


def _unrepeated(count: int, *, twin: bool) -> list[str]:
    if not count or twin:  # a twin's are no news: the search went on there
        return []
    return [f"{count} successes were not repeated when the model was asked again; they do not count as broken"]


def _share(flags: NDArray[Any]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _classes(
    labels: NDArray[Any], correct: NDArray[Any], robust: NDArray[Any], names: Sequence[str] | None
) -> list[dict[str, Any]]:
    found = []
    for label in np.unique(labels).tolist():
        mine = labels == label
        found.append(
            {
                "label": label,
                "name": name_of(label, names),
                "n": int(mine.sum()),
                "clean_accuracy": _share(correct[mine]),
                "robust_accuracy": _share(robust[mine]),
                "robust_interval": interval(int(robust[mine].sum()), int(mine.sum())),
            }
        )
    return found


def name_of(label: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, or its number."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _curve(table: pa.Table, rows: Rows, manifest: dict[str, Any], stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return {epsilon, fgsm, best, certified} per ε.

    `best` counts every example without a known success of that size, `certified` those of which that size is proven;
    it is None where no certifier was asked about sizes as large.
    """
    measured = any(stage.name == "curve" for stage in stages)
    asked = (np.inf if manifest.get("sized") else 1.0) if any(stage.proven is not None for stage in stages) else 0.0
    largest, factors = manifest["epsilons"][-1], manifest["plan"]["factors"]
    wrong = np.equal(rows["broken_by"], "clean")
    # By factor, so that an ε that is both on the grid and audited is one row; 0 is the clean model.
    audited = [epsilon / largest if largest else 1.0 for epsilon in manifest["epsilons"]]
    grid = {round(factor, 12): factor for factor in (*factors, *audited)}
    fgsm = {}
    if measured and len(table):
        flags = table["fgsm_broken"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        broken = flags.reshape(len(table), len(factors)).mean(0)
        fgsm = {round(factor, 12): float(1 - share) for factor, share in zip(factors, broken, strict=True)}
    clean = _share(~wrong)
    ends = {"fgsm": clean if measured else None, "best": clean, "certified": clean if asked else None}
    curve = [{"epsilon": 0.0, **ends}]
    for key, factor in sorted(grid.items()):
        best = _share(unbroken(rows, factor))
        held = _share(proven(rows, factor)) if factor <= asked else None
        curve.append({"epsilon": factor * largest, "fgsm": fgsm.get(key), "best": best, "certified": held})
    return curve


def proven(rows: Rows, factor: float) -> NDArray[Any]:
    """Return bool [N]: it is proven that nothing within `factor` times the largest budget breaks the example."""
    size = rows["proven_gauge"].astype(float)
    held: NDArray[Any] = (size >= factor * (1 - 1e-12)) & (size > 0) & unbroken(rows, factor)
    return held


def unbroken(rows: Rows, factor: float) -> NDArray[Any]:
    """Return bool [N]: no success within `factor` times the largest budget is known, and the search was measured."""
    size = rows["radius_gauge"].astype(float)  # None becomes NaN: no success known
    # A success is at most as large as the ε at which it was found: it was rounded towards x.
    held: NDArray[Any] = ~(size <= factor * (1 + 1e-12)) & (rows["status"] != "nonfinite")
    return held


def shown(manifest: dict[str, Any]) -> list[str]:
    """Return the budgets as a reader writes them; the plan's texts hold a hash of every tensor instead."""
    return list(manifest.get("budgets") or manifest["plan"]["budgets"])


def _sizes(rows: Rows, manifest: dict[str, Any], *, tried: bool) -> list[dict[str, Any]]:
    """Return the robust accuracy at every audited ε, with its interval, and the certified one where it was asked."""
    found, epsilons = [], manifest["epsilons"]
    for epsilon, budget in zip(epsilons, shown(manifest), strict=True):
        factor = epsilon / epsilons[-1] if epsilons[-1] else 1.0
        held = unbroken(rows, factor)
        found.append(
            {
                "budget": budget,
                "epsilon": epsilon,
                "robust_accuracy": _share(held),
                "robust_interval": interval(int(held.sum()), len(held)),
                "certified_accuracy": _share(proven(rows, factor)) if tried else None,
            }
        )
    return found


def _confusion(rows: Rows, names: Sequence[str] | None, classes: int) -> dict[str, Any]:
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (rows["clean_prediction"], rows["adversarial_prediction"]), 1)
    return {"labels": [name_of(label, names) for label in range(classes)], "counts": counts.tolist()}


def _radius(rows: Rows) -> dict[str, Any]:
    radius = rows["radius"].astype(float)
    found = np.sort(radius[(radius > 0) & np.isfinite(radius)])
    quartiles = np.quantile(found, [0.25, 0.5, 0.75]).tolist() if found.size else None
    return {
        "found": int(found.size),
        "median": quartiles[1] if quartiles else None,
        "quartiles": quartiles,
        "values": found.tolist(),
    }
