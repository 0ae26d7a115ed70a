"""Runs side by side: their numbers, their findings, and the examples that changed; one page, a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.report import page, wording
from steepest.report.contract import Table
from steepest.report.findings import headline
from steepest.report.tables import cost
from steepest.report.wording import NONE, count, interval, percent

_IDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run in a comparison.

    Attributes:
        name: how the reader knows it, its folder.
        link: where its page is.
        records: one dict per example, as `AuditRun.records`.
    """

    name: str
    link: str
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training beside runs.

    Attributes:
        name: how the reader knows it, its folder.
        link: where its page is; "" where there is none yet.
        known: its row of `steepest runs list --json`; what is missing there is not known.
    """

    name: str
    link: str
    known: Mapping[str, Any]


def compare(
    entries: Sequence[Entry],
    unfinished: Sequence[tuple[str, str]] = (),
    trainings: Sequence[Training] = (),
) -> str:
    """Return the page that lists runs and trainings, and compares all runs with the first.

    `unfinished` names the other runs and their state.

    An example is compared where both runs hold the same input under the same id.
    """
    entries = [_plain(each) for each in entries]
    template = page.environment().get_template("side-by-side.html.j2")
    return template.render(
        entries=entries,
        unfinished=wording.plain(list(unfinished)),
        trained=_trained(trainings),
        links=[(wording.plain(each.name), each.link) for each in trainings if each.link],
        numbers=_numbers(entries),
        checks=_checks(entries),
        changes=[_change(entries[0], other) for other in entries[1:]],
        version=(entries[0].manifest.get("versions") or {}).get("steepest") if entries else None,
        style=page.style(),
    )


def _plain(entry: Entry) -> Entry:
    return Entry(
        name=wording.plain(entry.name),
        link=entry.link,
        summary=wording.plain(entry.summary),
        manifest=wording.plain(entry.manifest),
        records=entry.records,
    )


def _robust(summary: Mapping[str, Any]) -> str:
    bound = "at most " if wording.at_most(summary) else ""
    return f"{bound}{percent(summary['robust_accuracy'])} ({interval(summary.get('robust_interval'))})"


def _first(summary: Mapping[str, Any]) -> str:
    mended = summary.get("mended")
    return percent(mended["first"]["robust_accuracy"]) if mended else NONE


_ROWS: dict[str, Callable[[Entry], str]] = {
    "Model": lambda each: str((each.manifest.get("model") or {}).get("source", NONE)),
    "Model, SHA-256": lambda each: str((each.manifest.get("model") or {}).get("sha256", NONE))[:12],
    "Data": lambda each: str((each.manifest.get("data") or {}).get("source", NONE)),
    "Data, SHA-256": lambda each: str((each.manifest.get("data") or {}).get("sha256", NONE))[:12],
    "Budget": lambda each: wording.budget(each.summary),
    "Examples": lambda each: count(each.summary["n"]),
    "Clean accuracy": lambda each: percent(each.summary["clean_accuracy"]),
    "Robust accuracy": lambda each: _robust(each.summary),
    "As first measured": lambda each: _first(each.summary),
    "Certified accuracy": lambda each: (
        percent(each.summary["certified_accuracy"]) if wording.certified(each.summary) else NONE
    ),
    "Verdict": lambda each: headline(each.summary).word,
    "Preset": lambda each: str(each.summary.get("preset") or NONE),
    "Objective": lambda each: str(each.summary.get("objective") or NONE),
    "Cost": lambda each: cost(each.summary),
}


def _numbers(entries: Sequence[Entry]) -> Table:
    rows = tuple((name, *(row(each) for each in entries)) for name, row in _ROWS.items())
    return Table(caption="Numbers side by side", head=("Measured", *(each.name for each in entries)), rows=rows)


def _trained(trainings: Sequence[Training]) -> Table | None:
    rows = [(each.name, wording.plain(each.known)) for each in trainings]
    cells = [
        (
            wording.plain(name),
            *(str(known.get(key) or NONE) for key in ("model", "budget", "method")),
            f"{known['epochs']} of {known['epochs_asked']}" if "epochs" in known else NONE,
            *(percent(known.get(key)) for key in ("clean", "robust")),
            known["state"],
        )
        for name, known in rows
    ]
    head = ("Training", "Model", "Budget", "Method", "Epochs", "Clean accuracy", "Robust accuracy, at most", "State")
    return Table(caption="What came of each training", head=head, rows=tuple(cells)) if cells else None


def _checks(entries: Sequence[Entry]) -> Table | None:
    levels = [{f["check"]: str(f["level"]).upper() for f in each.summary.get("findings") or []} for each in entries]
    names = list(dict.fromkeys(name for held in levels for name in held))
    if not names:
        return None
    rows = tuple((name, *(held.get(name, NONE) for held in levels)) for name in names)
    return Table(caption="What each check said", head=("Check", *(each.name for each in entries)), rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs between two runs, example by example."""

    name: str
    story: str
    table: Table | None


def _change(first: Entry, other: Entry) -> Change:
    """Count in pairs: what two accuracies hide when they are compared alone."""
    ours, theirs = ({(r["example_id"], r["pixel_hash"]): r["broken"] for r in each.records} for each in (first, other))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return Change(name=other.name, story="The two runs share no example, so none can be compared.", table=None)
    pairs = [(key[0], ours[key], theirs[key]) for key in shared]
    only = {
        f"broken in {first.name} alone": [i for i, a, b in pairs if a and not b],
        f"broken in {other.name} alone": [i for i, a, b in pairs if b and not a],
    }
    rows = [(words, count(len(ids)), _listed(ids)) for words, ids in only.items()]
    rows += [
        ("broken in both", count(sum(a and b for _, a, b in pairs)), ""),
        ("broken in neither", count(sum(not (a or b) for _, a, b in pairs)), ""),
    ]
    changed = sum(len(ids) for ids in only.values())
    return Change(
        name=other.name,
        story=f"{count(changed)} of {count(len(shared))} shared examples changed.",
        table=Table(
            caption=f"{first.name} against {other.name}", head=("Outcome", "Examples", "Which"), rows=tuple(rows)
        ),
    )


def _listed(ids: Sequence[int]) -> str:
    more = f", … ({len(ids):,} in all)" if len(ids) > _IDS else ""
    return ", ".join(str(each) for each in ids[:_IDS]) + more
