"""`steepest compare`: models side by side on the same examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steepest.app import console, exports
from steepest.app.config import Settings, command_line, default_folder, resolve
from steepest.app.opening import open_budgets, open_model, open_source
from steepest.audit.comparison import Comparison
from steepest.audit.comparison import compare as measure
from steepest.audit.places import Place, place_of
from steepest.audit.presets import parse_attacks, preset_of
from steepest.basis.errors import UsageError
from steepest.models.objectives import objective_of
from steepest.report import comparison
from steepest.report.page import put
from steepest.report.run import report
from steepest.report.wording import percent, size

_NAMED = re.compile(r"([A-Za-z0-9_][\w.-]*)=(.+)")
_REMEDY = "write `steepest compare A.onnx B.onnx --data DATA --budget linf:8/255`"


def run(models: Sequence[str], given: Mapping[str, Any], *, as_json: bool, outputs: Sequence[str]) -> None:
    """Compare, write the pages, print the result; raises as `st.compare`."""
    with console.Terminal() as terminal:
        places = named(models)
        settings, notes = resolve({**given, "model": "compare"}, remedy=_REMEDY)
        for note in notes:
            terminal.say(note)
        targets = exports.checked(outputs, (".html", ".json"))
        found = _compared(places, settings, terminal)
    record = {**found.to_record(), "command": command_line(["compare"], settings, models=models)}
    for each in found.models:
        report(each.run)
    html = comparison.render(record)
    page = put(found.folder / comparison.PAGE, html)
    for path in targets:
        if path.suffix.lower() == ".json":
            exports.write_json(path, record)
        else:
            put(path, html)
    if as_json:
        console.show_json(record)
    else:
        _show(record, [page, *targets])


def named(models: Sequence[str]) -> dict[str, str]:
    """Return the models by name: that before "=", the factory's, or the file's; numbered where two are equal.

    >>> named(["a/net.onnx", "b/net.onnx", "net.py:make", "best=c.onnx"])
    {'net': 'a/net.onnx', 'net-2': 'b/net.onnx', 'make': 'net.py:make', 'best': 'c.onnx'}

    Raises:
        UsageError: a name was given twice.
    """
    found: dict[str, str] = {}
    for text in models:
        match = None if Path(text).exists() else _NAMED.fullmatch(text)
        if match is not None and match[1] in found:
            raise UsageError(f"two models are named {match[1]!r}: give each a name of its own.")
        if match is not None:
            found[match[1]] = match[2]
            continue
        name = _stem(text)
        same = next(number for number in range(1, len(models) + 1) if _numbered(name, number) not in found)
        found[_numbered(name, same)] = text
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _stem(text: str) -> str:
    factory = None if Path(text).exists() else re.fullmatch(r".+:(\w+)", text)
    name = factory[1] if factory else Path(text).stem
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _compared(places: Mapping[str, str], settings: Settings, terminal: console.Terminal) -> Comparison:
    """Look at what is cheap to refuse before anything large is opened."""
    if len(places) < 2:
        raise UsageError(f"{len(places)} model to compare: {_REMEDY}; one alone is audited, `steepest audit`.")
    preset_of(settings.preset)
    if settings.attacks is not None:
        parse_attacks(settings.attacks)
    objective_of(settings.objective)
    batch_size, budgets, source = settings.batch(), open_budgets(settings), open_source(settings)
    each = {name: settings.model_copy(update={"model": place}) for name, place in places.items()}
    models = {name: open_model(one) for name, one in each.items()}
    out = place_of(settings.out or _folder(settings, [model.facts.sha256 for model in models.values()]))
    return measure(
        models,
        source,
        budgets,
        preset=settings.preset,
        attacks=settings.attacks,
        objective=settings.objective,
        out=out,
        limit=settings.limit,
        sample=settings.sample,
        seed=settings.seed,
        batch_size=batch_size,
        device=settings.device,
        precision=settings.precision,
        diagnose=settings.diagnose,
        allow_chance=settings.allow_chance,
        commands={
            name: command_line(["audit"], one.model_copy(update={"out": str(out / name)})) for name, one in each.items()
        },
        progress=terminal,
    )


def _folder(settings: Settings, hashes: Sequence[str]) -> Path:
    """Return runs/compare-<data>-<hash of what was asked>."""
    return default_folder(settings, " ".join(hashes))


def _show(record: Mapping[str, Any], written: Sequence[Place]) -> None:
    sizes = [each["epsilon"] for each in record["models"][0]["sizes"]]
    head = ("model", "clean", *(f"robust at {size(epsilon)}" for epsilon in sizes), "median radius", "verdict")
    rows = [
        (
            model["name"],
            percent(model["clean_accuracy"]),
            *(percent(each["robust_accuracy"]) for each in model["sizes"]),
            size(model["median_radius"]) if model["median_radius"] is not None else f"above {size(record['epsilon'])}",
            model["verdict"]["word"],
        )
        for model in record["models"]
    ]
    console.show_table(head, rows)
    console.say()
    for sentence in comparison.sentences(record):
        console.say(sentence)
    for path in written:
        console.say(str(path))
