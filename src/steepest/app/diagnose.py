"""`steepest diagnose`: the panel of checks alone, on a few examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.app import console, exports
from steepest.app.audit import show_verdict
from steepest.app.config import command_line, resolve
from steepest.app.opening import one_budget, open_subject
from steepest.basis.version import VERSION
from steepest.diagnose.api import Diagnosis, diagnose
from steepest.diagnose.panel import named
from steepest.report.diagnosis import render

COUNT, SECONDS = 64, 20.0
"""Examples, and seconds for the searches without gradients, unless the user says how many."""


def run(given: Mapping[str, Any], *, checks: str | None, seconds: float, as_json: bool, output: str | None) -> None:
    """Examine a model and print what each check says; raises as `st.diagnose`."""
    with console.Terminal() as terminal:
        paths = exports.checked([] if output is None else [output], (".json", ".html"))
        chosen = None if checks is None else [name.strip() for name in checks.split(",") if name.strip()]
        named(chosen)
        settings, notes = resolve(given)
        for note in notes:
            terminal.say(note)
        if settings.limit is None and settings.sample is None:
            settings = settings.model_copy(update={"sample": COUNT})
        budget = one_budget(settings, terminal)
        subject, _ = open_subject(settings, terminal)
        found = diagnose(
            subject.model,
            subject.batch(subject.ids),
            budget.fitted((len(subject.source), *subject.source.shape)).rows(subject.ids),
            objective=settings.objective,
            checks=chosen,
            seed=settings.seed,
            seconds=seconds,
            progress=terminal,
        )
    own = {
        name: value
        for name, value, usual in (("checks", checks, None), ("seconds", f"{seconds:g}", f"{SECONDS:g}"))
        if value != usual
    }
    command = command_line(["diagnose"], settings, own=own)
    record = {**found.to_record(), "budget": repr(budget), "command": command}
    for path in paths:
        if exports.ending(path, (".html",)):
            exports.write_text(path, render(record, VERSION))
        else:
            exports.write_json(path, record)
    if as_json:
        console.show_json(record)
    else:
        _show(found)
        for path in paths:
            console.say(str(path))


def _show(found: Diagnosis) -> None:
    rows = [(each.level.value, each.check, each.says, f"{each.seconds:.1f} s") for each in found.findings]
    console.show_table(("level", "check", "what it found", "time"), rows)
    console.say()
    for note in found.notes:
        console.say(note)
    show_verdict(found.verdict.to_record())
    console.say(f"{found.count} examples, {found.seconds:.1f} s (about {found.estimated:.0f} s were foretold)")
