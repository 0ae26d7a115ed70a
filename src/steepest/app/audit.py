"""`steepest audit`: from what was asked to records, numbers and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from steepest.app import console, exports
from steepest.app.config import FILE, Settings, command_line, default_folder, resolve
from steepest.app.exits import GATE_FAILED, UNBELIEVABLE
from steepest.app.gate import parse_gates
from steepest.app.opening import open_budgets, open_model, open_source, target_index
from steepest.audit.api import AuditRun
from steepest.audit.api import audit as measure
from steepest.audit.executors import executor_of
from steepest.audit.order import Reopened
from steepest.audit.parts import PartFinished
from steepest.audit.places import Place
from steepest.audit.presets import parse_attacks, preset_of
from steepest.audit.store import RunFolder
from steepest.diagnose.verdict import UNKNOWN
from steepest.models.objectives import objective_of
from steepest.report.contract import Claim
from steepest.report.exports import EXPORTS
from steepest.report.run import report
from steepest.report.wording import (
    assured,
    at_most,
    blind,
    bracket,
    budget,
    certified,
    count,
    duration,
    exact,
    percent,
    size,
    twin,
)

ENDINGS = (".html", *EXPORTS)
"""What a run can be written as."""

_POINTS = 8
"""How many points of the curve fit on a line."""


def run(given: Mapping[str, Any], *, as_json: bool, outputs: Sequence[str]) -> None:
    """Audit, write the page, print the result, and judge the gates; raises as `st.audit`."""
    with console.Terminal() as terminal:
        settings, notes = resolve(given, file=Path(FILE))
        for note in notes:
            terminal.say(note)
        gates = parse_gates(settings.gate)
        targets = exports.checked(outputs, ENDINGS)
        command = command_line(["audit"], settings.model_copy(update={"shard": None}))
        try:
            found = audited(settings, command, terminal)
        except PartFinished as finished:
            terminal.say(str(finished))
            if as_json:
                console.show_json({"finished": settings.shard, "says": str(finished)})
            return
    claims = [gate.claim(found.summary) for gate in gates]
    page = report(found)
    export(found, targets, claims)
    if as_json:
        console.show_json(found.summary)
    else:
        show(found, [page, *targets])
    judge(claims, found.summary, terminal)


def export(found: AuditRun, targets: Sequence[Path], claims: Sequence[Claim] = ()) -> None:
    """Write a run as every target's ending asks for.

    Raises:
        UsageError: a file cannot be written.
    """
    manifest = RunFolder(found.folder).manifest()
    for path in targets:
        kind = exports.ending(path, ENDINGS)
        if kind in EXPORTS:
            exports.write_text(path, EXPORTS[kind](found.summary, manifest, claims))
        else:
            report(found, path)


def audited(settings: Settings, command: str, terminal: console.Terminal) -> AuditRun:
    """Measure what settings ask for; what is cheap to refuse is looked at before anything large is opened.

    Args:
        command: the line that the report gives to repeat the run. The records of a part are part of those of the
            whole, so it names no part.
    """
    preset_of(settings.preset)
    if settings.attacks is not None:
        parse_attacks(settings.attacks)
    objective_of(settings.objective)
    batch_size, budgets = settings.batch(), open_budgets(settings)
    hands = executor_of(
        settings.executor,
        workers=settings.workers,
        address=settings.address,
        gpus=settings.gpus,
        retries=settings.retries,
    )
    source, model = open_source(settings), open_model(settings)
    target = target_index(settings.target, source.class_names)
    return measure(
        model,
        Reopened(here=source, again=partial(open_source, settings)),
        budgets,
        preset=settings.preset,
        attacks=settings.attacks,
        certify=settings.method,
        objective=settings.objective,
        target=target,
        out=settings.out or default_folder(settings, model.facts.sha256),
        limit=settings.limit,
        sample=settings.sample,
        seed=settings.seed,
        batch_size=batch_size,
        shard_size=settings.shard_size,
        device=settings.device,
        precision=settings.precision,
        save=settings.save,
        assure=settings.assure,
        diagnose=settings.diagnose,
        allow_chance=settings.allow_chance,
        command=command,
        progress=terminal,
        executor=hands,
        shard=settings.shard,
    )


def show(found: AuditRun, written: Sequence[Place]) -> None:
    """Print the ledger, the headline, the curve and where the page is."""
    summary = found.summary
    certify = summary["certified_count"] is not None
    rows = [_row(stage, certify=certify) for stage in summary["stages"]]
    proven = ("proven",) if certify else ()
    console.show_table(("stage", "ε", "entered", "broken", *proven, "forwards", "backwards", "seconds"), rows)
    if found_in := twin(summary):
        console.say(found_in)
    console.say()
    aim = "" if summary["target"] is None else f" towards class {summary['target']}"
    for each in summary["sizes"]:
        low, high = each["robust_interval"]
        bounded = at_most(summary) or (exact(summary) and each is not summary["sizes"][-1])
        console.say(
            f"robust accuracy{' at most' if bounded else ''} {percent(each['robust_accuracy'])} "
            f"[{100 * low:.1f}, {100 * high:.1f}] of N={summary['n']} under {budget({**summary, **each})}{aim}, "
            f"clean {percent(summary['clean_accuracy'])}"
        )
    for sentence in filter(None, (assured(summary), certified(summary), bracket(summary), *blind(summary))):
        console.say(sentence)
    console.say(f"accuracy at ε: {_curve(summary['curve'])}")
    show_verdict(summary["verdict"])
    if mended := summary["mended"]:
        first = percent(mended["first"]["robust_accuracy"])
        console.say(f"as first measured {first}; then the search was mended: {'; '.join(mended['changes'])}")
    for path in written:
        console.say(str(path))


def show_verdict(verdict: Mapping[str, Any]) -> None:
    """Print the word, its reasons in order of weight, and the next thing to do."""
    console.say(f"verdict: {verdict['word']}")
    for reason in verdict["reasons"]:
        console.say(f"  - {reason}")
    console.say(f"  next: {verdict['next']}")


def _row(stage: Mapping[str, Any], *, certify: bool) -> tuple[str, ...]:
    proven = "" if stage["proven"] is None else count(stage["proven"])
    return (
        stage["name"],
        size(stage["epsilon"]) if stage["epsilon"] else "",
        count(stage["entered"]),
        count(stage["broken"]),
        *((proven,) if certify else ()),
        count(stage["forwards"]),
        count(stage["backwards"]),
        duration(stage["seconds"]),
    )


def _curve(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [row for row in rows if row["best"] is not None]
    step = max(1, -(-len(known) // _POINTS))
    return ", ".join(f"{size(row['epsilon'])}: {percent(row['best'])}" for row in known[::step])


def judge(claims: Sequence[Claim], summary: Mapping[str, Any], terminal: console.Terminal) -> None:
    """Leave with the exit code of a gate that does not hold, or holds on a number that cannot be believed."""
    failed = [claim for claim in claims if not claim.holds]
    for claim in failed:
        terminal.say(claim.says)
    if failed:
        raise typer.Exit(GATE_FAILED)
    verdict = summary["verdict"]
    if claims and verdict["word"] != UNKNOWN and not verdict["believable"]:
        terminal.say(f"the gates hold, but rest on a number that cannot be believed: {verdict['word']}")
        raise typer.Exit(UNBELIEVABLE)
