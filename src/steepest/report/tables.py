"""The page's tables: stages and their cost, confusion, and the facts about model, data and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.report.contract import Table
from steepest.report.wording import MISSING, NONE, count, duration, measured, percent, short, size, unmeasured

HEAT = 20
PAIRS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Clean prediction × adversarial prediction, each cell as (count, share of its row)."""

    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Where predictions went: a heat map up to 20 classes, otherwise the most frequent changes."""

    story: str
    heat: Heat | None
    pairs: Table | None


def stages(summary: Mapping[str, Any]) -> Table | None:
    """Return the ledger of the stages, or None without stages.

    The robust accuracy after a stage is the share that nothing broke up to there; a success at a smaller ε counts for
    the larger ones. Examples that could not be measured count as never robust, so that the last number is the run's.
    """
    ledger = summary.get("stages") or []
    if not ledger:
        return None
    certify = any(stage.get("proven") is not None for stage in ledger)
    left, rows = summary["n"] - unmeasured(summary), []
    for stage in ledger:
        broken = stage.get("broken") or 0
        left -= broken
        passes = (stage.get("forwards") or 0) + (stage.get("backwards") or 0)
        rows.append(
            (
                short(stage.get("name")),
                size(stage.get("epsilon")) if measured(stage.get("epsilon")) else NONE,
                count(stage.get("entered")),
                count(stage.get("broken")),
                *([_proven(stage)] if certify else []),
                percent(left / summary["n"]) if summary["n"] else MISSING,
                count(stage.get("forwards")),
                count(stage.get("backwards")),
                duration(stage.get("seconds")),
                f"{passes / broken:,.1f}" if broken else NONE,
            )
        )
    head = ("Stage", "ε", "Entered", "Broken", *(["Proven"] if certify else []), "Robust accuracy after")
    cost = ("Forwards", "Backwards", "Time", "Passes per broken example")
    return Table(caption="Stages in the order they ran", head=head + cost, rows=tuple(rows))


def _proven(stage: Mapping[str, Any]) -> str:
    return NONE if stage.get("proven") is None else count(stage["proven"])


def certifiers(summary: Mapping[str, Any]) -> Table | None:
    """Return what every certifier proved and cost, or None where none ran."""
    found = summary.get("certifiers") or []
    if not found:
        return None
    rows = tuple((each["name"], *(count(each[key]) for key in _COUNTS), duration(each["seconds"])) for each in found)
    return Table(caption="What each certifier proved", head=("Certifier", "Entered", "Proven", "Time"), rows=rows)


_COUNTS = ("entered", "certified")


def brackets(summary: Mapping[str, Any]) -> Table | None:
    """Return both sides of each example listed, the closest first, or None where no certifier ran."""
    found = summary.get("brackets") or []
    if not found:
        return None
    rows = tuple(
        (
            str(each["example_id"]),
            size(each["proven_radius"]) if each["proven_radius"] else "nothing",
            "nothing" if each["radius"] is None else size(each["radius"]),
            NONE if each["ratio"] is None else f"{each['ratio']:.4g}",
            str(each["bracket"]),
        )
        for each in found
    )
    head = ("Example", "Proven up to", "Broken at", "Ratio", "At the budget")
    return Table(caption="Both sides of each example, the closest first", head=head, rows=rows)


def cost(summary: Mapping[str, Any]) -> str:
    """Return the whole cost in one phrase, or "not measured"."""
    ledger = summary.get("stages") or []
    if not ledger:
        return MISSING
    forwards, backwards, seconds = (
        sum(stage.get(key) or 0 for stage in ledger) for key in ("forwards", "backwards", "seconds")
    )
    return f"{count(forwards)} forwards, {count(backwards)} backwards, {duration(seconds)}"


def confusion(summary: Mapping[str, Any]) -> Confusion | None:
    """Return where predictions went, or None where no counts are recorded."""
    found = summary.get("confusion") or {}
    counts: Sequence[Sequence[int]] = found.get("counts") or []
    total = sum(sum(row) for row in counts)
    if not total:
        return None
    names = tuple(short(name, 40) for name in found["labels"])
    kept = sum(row[place] for place, row in enumerate(counts) if place < len(row))
    changed = total - kept
    story = f"{count(changed)} of {count(total)} predictions changed ({percent(changed / total)})."
    if len(names) > HEAT:
        return Confusion(story=story, heat=None, pairs=_pairs(names, counts))
    rows = tuple(tuple((int(cell), cell / (sum(row) or 1)) for cell in row) for row in counts)
    return Confusion(story=story, heat=Heat(labels=names, rows=rows), pairs=None)


def _pairs(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    changes = [
        (cell, names[a], names[b], sum(row))
        for a, row in enumerate(counts)
        for b, cell in enumerate(row)
        if a != b and cell
    ]
    top = sorted(changes, key=lambda change: -change[0])[:PAIRS]
    return Table(
        caption=f"The {len(top)} most frequent of {len(changes):,} kinds of change",
        head=("Clean prediction", "Adversarial prediction", "Examples", "Share of the clean prediction"),
        rows=tuple((a, b, count(cell), percent(cell / whole)) for cell, a, b, whole in top),
    )


_WORDS = {
    "sha256": "SHA-256",
    "n": "examples",
    "input_shape": "input shape",
    "batch_independent": "independent of the batch",
    "training": "in training mode",
    "agreement": "largest difference to onnxruntime",
    "class_names": "class names",
    "batch_size": "batch size",
}


def facts(record: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return a record as pairs of words and text, in its own order; nothing is left out."""
    return [(_WORDS.get(key, key.replace("_", " ")), _text(key, value)) for key, value in (record or {}).items()]


def _text(key: str, value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{word}: {text}" for word, text in facts(value)) or NONE
    if isinstance(value, list) and key.endswith("shape"):
        return " × ".join(str(side) for side in value)
    if isinstance(value, list) and key in ("notes", "note"):
        return " ".join(str(note) for note in value) or "none"
    if isinstance(value, list):
        more = f", … ({len(value):,} in all)" if len(value) > 20 else ""
        return ", ".join(short(item, 40) for item in value[:20]) + more or NONE
    return str(value) or NONE
