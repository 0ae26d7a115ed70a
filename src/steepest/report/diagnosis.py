"""From the record of a diagnosis to its page: verdict, why, and the landscape; no number to defend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.report import findings, page, wording
from steepest.report.scenery import scenery


def render(record: Mapping[str, Any], version: str | None = None) -> str:
    """Return the page of a diagnosis, a pure function of what `steepest diagnose --json` prints.

    `record` is `Diagnosis.to_record()`, with "budget" and "command" where they are known. The page has no script and
    asks for nothing outside itself.
    """
    known = wording.plain(record)
    return (
        page.environment()
        .get_template("diagnosis.html.j2")
        .render(
            record=known,
            head=findings.headline(known),
            findings=findings.ranked(known["findings"]) if known["findings"] else None,
            scenery=scenery(known),
            duration=wording.duration(known.get("seconds")),
            version=version,
            style=page.style(),
        )
    )
