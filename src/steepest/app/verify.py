"""`steepest verify`: one property, a folder of them, or a list of instances."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from steepest.app import console, exports
from steepest.app.exits import USAGE
from steepest.audit.verifying.api import verify
from steepest.audit.verifying.contract import REAL, SAT, UNKNOWN, UNSAT, Decision
from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.basis.progress import Progress
from steepest.certify.vnnlib import ENDINGS
from steepest.report.wording import duration

_SECONDS = 60.0
"""For each property if nobody says how many."""

_HEAD = ("onnx", "vnnlib", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One network, one property, and the seconds for it."""

    network: Path
    asked: Path
    timeout: float


def run(
    network: str, asked: str | None, *, timeout: float | None, seed: int, as_json: bool, output: str | None
) -> None:
    """Decide, and print the answers.

    Raises:
        UsageError: paths or a list that cannot be read; for a single property also what is wrong with it.
    """
    instances, single = _instances(network, asked, timeout)
    path = None if output is None else Path(output).expanduser()
    if path is not None:
        if not single:
            raise UsageError("-o holds the counterexample of one property: leave it out for several; --json has all.")
        exports.require_parent(path)
    if single:
        found = verify(instances[0].network, instances[0].asked, timeout=instances[0].timeout, seed=seed)
        record = _record(instances[0], found)
        if path is not None:
            exports.write_text(path, _result(found))
        if as_json:
            console.show_json(record)
        else:
            _show(found, path)
        return
    with console.Terminal() as terminal:
        records = [_one(instance, seed, at, len(instances), terminal) for at, instance in enumerate(instances, 1)]
    counts = Counter(record["answer"] for record in records)
    if as_json:
        console.show_json({"n": len(records), **{word: counts[word] for word in _ANSWERS}, "instances": records})
    else:
        _show_all(records, counts)
    if counts["error"]:
        raise typer.Exit(USAGE)


_ANSWERS = (SAT, UNSAT, UNKNOWN, "error")


def _instances(network: str, asked: str | None, timeout: float | None) -> tuple[list[Instance], bool]:
    """Return what is to be decided, and whether it is a single property."""
    first = Path(network).expanduser()
    if first.suffix.lower() == ".csv":
        if asked is not None:
            raise UsageError(f"{network!r} lists networks and properties: leave {asked!r} out.")
        return list(_listed(first, timeout)), False
    if asked is None:
        raise UsageError("no PROPERTY was given: a .vnnlib file, a folder of them, or only a list instances.csv.")
    second, seconds = Path(asked).expanduser(), _SECONDS if timeout is None else timeout
    if not second.is_dir():
        return [Instance(network=first, asked=second, timeout=seconds)], True
    files = sorted(path for path in second.iterdir() if exports.ending(path, ENDINGS))
    if not files:
        raise UsageError(f"the folder {asked!r} holds no property: allowed are files ending in {' or '.join(ENDINGS)}.")
    return [Instance(network=first, asked=path, timeout=seconds) for path in files], False


def _listed(path: Path, timeout: float | None) -> Iterator[Instance]:
    """Yield the lines of a list: network, property, seconds; paths count from its folder, .gz may be left out."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines(), skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"the list {str(path)!r} cannot be read ({error}): give lines onnx,vnnlib,timeout.") from None
    kept = [(number, line) for number, line in enumerate(lines, 1) if line and tuple(line) != _HEAD]
    if not kept:
        raise UsageError(f"the list {str(path)!r} is empty: give lines onnx,vnnlib,timeout.")
    for number, line in kept:
        try:
            network, asked, seconds = line
            own = float(seconds)
        except ValueError:
            raise UsageError(
                f"{str(path)!r}, line {number}: {','.join(line)!r} is not onnx,vnnlib,timeout; the last in seconds."
            ) from None
        places = (_there(path.parent / name.strip()) for name in (network, asked))
        yield Instance(network=next(places), asked=next(places), timeout=own if timeout is None else timeout)


def _there(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if not path.exists() and packed.exists() else path


def _one(instance: Instance, seed: int, number: int, count: int, progress: Progress) -> dict[str, Any]:
    """Decide one of several; what is wrong with it is its answer, and the others go on."""
    try:
        record = _record(instance, verify(instance.network, instance.asked, timeout=instance.timeout, seed=seed))
    except (UsageError, ModelError, DataError) as error:
        record = _named(instance) | {"answer": "error", "reason": str(error), "seconds": 0.0, "how": ""}
    progress.say(f"{number} of {count}: {instance.asked.name} {record['answer']} ({duration(record['seconds'])})")
    return record


def _named(instance: Instance) -> dict[str, Any]:
    return {"network": str(instance.network), "property": str(instance.asked), "timeout": instance.timeout}


def _record(instance: Instance, found: Decision) -> dict[str, Any]:
    return _named(instance) | {
        "answer": found.answer,
        "how": found.how,
        "reason": found.reason,
        "boxes": found.boxes,
        "points": found.points,
        "seconds": found.seconds,
        "x": None if found.x is None else found.x.double().tolist(),
        "y": None if found.y is None else found.y.double().tolist(),
        "assumes": REAL if found.answer == UNSAT else None,
    }


def _result(found: Decision) -> str:
    """Return the answer and, for sat, the counterexample, as the verification competitions have it."""
    if found.x is None or found.y is None:
        return f"{found.answer}\n"
    pairs = [f"(X_{i} {value!r})" for i, value in enumerate(found.x.double().tolist())]
    pairs += [f"(Y_{j} {value!r})" for j, value in enumerate(found.y.double().tolist())]
    return f"{found.answer}\n(" + "\n".join(pairs) + ")\n"


def _show(found: Decision, path: Path | None) -> None:
    console.say(found.answer)
    tried = f"{found.boxes} boxes, {found.points} points, {duration(found.seconds)}"
    console.say(f"by {found.how} ({tried})" if not found.reason else f"{found.reason}: {found.how} ({tried})")
    if found.answer == UNSAT:
        console.say(REAL)
    if found.x is not None and found.y is not None and path is None:
        console.say(f"x = {_brief(found.x.tolist())}, y = {_brief(found.y.tolist())}; -o FILE writes it")
    if path is not None:
        console.say(str(path))


def _brief(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:10])
    return f"({shown}{', ...' if len(values) > 10 else ''})"


def _show_all(records: Sequence[dict[str, Any]], counts: Counter[str]) -> None:
    rows = [
        (
            Path(record["network"]).name,
            Path(record["property"]).name,
            record["answer"],
            duration(record["seconds"]),
            record["reason"] or record["how"],
        )
        for record in records
    ]
    console.show_table(("network", "property", "answer", "time", "by"), rows)
    console.say()
    said = ", ".join(f"{counts[word]} {word}" for word in _ANSWERS if counts[word] or word != "error")
    console.say(f"{said}; {duration(sum(record['seconds'] for record in records))}")
