"""From records to one self-contained page: no script, no request, everything escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steepest.audit import places
from steepest.audit.places import Place
from steepest.basis.errors import DataError, UsageError
from steepest.report import charts, findings, gallery, plots, scenery, tables, wording
from steepest.report.contract import Triple

LARGEST = 5_000_000
CLASS_ROWS = 1000
REASONS = 6
"""So many reasons stand beside the verdict; the others are below it."""

_CARD = 2_500

_ASKED = ("budget", "epsilon", "budget_unit", "preset", "objective", "precision", "seed")

_TEMPLATES = Path(__file__).parent / "templates"


def render(summary: Mapping[str, Any], manifest: Mapping[str, Any], gallery: Sequence[Triple] = ()) -> str:
    """Return the report of a run as one HTML page, a pure function of the run's records.

    `summary` is what `steepest audit --json` prints, `manifest` the run's manifest, `gallery` the broken examples
    to show. The page has no script, asks for nothing outside itself, escapes every name, and stays below 5 MB: at
    most 48 examples are shown, fewer where their images would not fit, and the page says so.

    Raises:
        DataError: the summary lacks `n`, `clean_accuracy` or `robust_accuracy`; audit again.
    """
    for key in ("n", "clean_accuracy", "robust_accuracy"):
        if key not in summary:
            raise DataError(
                f"the summary has {', '.join(sorted(summary)) or 'nothing'} but no {key!r}: a report needs n, "
                "clean_accuracy and robust_accuracy. Run the audit again, or give the JSON it prints unchanged."
            )
    context = _context(wording.plain(summary), wording.plain(manifest))
    template = environment().get_template("report.html.j2")
    empty = template.render(**context, cards=[], total=len(gallery))
    return template.render(**context, cards=_shown(gallery, empty), total=len(gallery))


def write(
    path: Place, summary: Mapping[str, Any], manifest: Mapping[str, Any], gallery: Sequence[Triple] = ()
) -> Place:
    """Write the report of a run to `path` and return it; a reader sees the old page or the new one, never half.

    Raises:
        UsageError: the folder is missing, cannot be written or is full; nothing is left behind.
    """
    return put(path, render(summary, manifest, gallery))


def put(path: Place, page: str) -> Place:
    """Write a page to `path` whole and return it; raises as `write`."""
    try:
        places.write(path, page.encode())
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {str(path)!r} ({error.strerror}): the path must be a file in an existing "
            "folder with space left. Make the folder, free some space, or choose another path."
        ) from error
    return path


def _shown(triples: Sequence[Triple], empty: str) -> list[Any]:
    room = LARGEST - len(empty.encode()) - _CARD * min(len(triples), gallery.MOST)
    return gallery.cards(triples, room)


def environment() -> Environment:
    """Return what templates are filled in: everything is escaped, nothing may be missing."""
    found = Environment(
        loader=PackageLoader("steepest.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = ("percent", "interval", "count", "size", "short", "sentence")
    found.filters.update({name: getattr(wording, name) for name in words})
    found.globals.update(looks=plots.LOOKS, most_reasons=REASONS)
    return found


def style(*more: str) -> Markup:
    """Return the style sheet that every page carries, and more of them, as they stand in a page."""
    return Markup("\n").join(Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("style.css", *more))


def _context(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    radius = summary.get("radius") or {}
    return {
        "summary": summary,
        "budget": wording.budget(summary),
        "robust_count": _robust_count(summary),
        "unmeasured": wording.unmeasured(summary),
        "at_most": wording.at_most(summary),
        "certified": wording.certified(summary),
        "bracket": wording.bracket(summary),
        "vacuous": wording.vacuous(summary),
        "ratios": wording.ratios(summary),
        "certifiers": tables.certifiers(summary),
        "brackets": tables.brackets(summary),
        "sided": sum(1 for row in summary.get("curve") or [] if wording.measured(row.get("certified"))) > 0,
        "assured": wording.assured(summary),
        "warnings": wording.warnings(summary, manifest),
        "head": findings.headline(summary),
        "findings": findings.ranked(summary["findings"]) if summary.get("findings") else None,
        "scenery": scenery.scenery(summary),
        "curve": charts.curve(summary),
        "classes": charts.classes(summary, CLASS_ROWS),
        "class_count": len(summary.get("per_class") or []),
        "worst": charts.WORST,
        "stages": tables.stages(summary),
        "cost": tables.cost(summary),
        "twin": wording.twin(summary),
        "radius": radius,
        "radii": charts.radii(summary),
        "confusion": tables.confusion(summary),
        "most": gallery.MOST,
        "facts": _facts(summary, manifest),
        "version": (manifest.get("versions") or {}).get("steepest"),
        "created": manifest.get("created"),
        "style": style(),
    }


def _robust_count(summary: Mapping[str, Any]) -> int | None:
    share = summary["robust_accuracy"]
    return round(share * summary["n"]) if wording.measured(share) else None


def _facts(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    asked = {key: summary.get(key) for key in _ASKED}
    run = {**asked, "run": summary.get("run"), "plan_hash": manifest.get("plan_hash")}
    titled = {
        "Model": manifest.get("model"),
        "Data": manifest.get("data"),
        "Question": {key: value for key, value in run.items() if value is not None},
        "Versions": manifest.get("versions"),
        "Machine": {**(manifest.get("machine") or {}), **(manifest.get("measured") or {})},
    }
    return [(title, tables.facts(record)) for title, record in titled.items() if record]
