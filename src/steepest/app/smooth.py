"""`steepest smooth`: certified accuracy of a smoothed classifier; the counts stay in a file and are gone on from."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.app import console, exports
from steepest.app.config import Settings, command_line, resolve
from steepest.app.opening import open_subject
from steepest.audit.subject import Subject
from steepest.basis.catalogue import parse_number
from steepest.basis.errors import UsageError
from steepest.basis.fingerprints import describe, ids_digest
from steepest.basis.progress import Progress
from steepest.certify.smoothing import Counts, Smoothed, concluded, drawing, most, require
from steepest.report.wording import count, percent, size

STATE, RESULT = "counts.npz", "smoothed.json"

_TOGETHER = 64
"""Examples that are held in memory at once."""

_EVERY = 20.0
"""Seconds after which the counts are written again."""

_BATCH = 1024
"""Noisy copies asked about at once if nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What belongs to smoothing alone; see `st.smoothed`. `radii` is a text of numbers, or None."""

    sigma: float
    draws: int
    first_draws: int
    alpha: float
    radii: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is smoothed, how, and where its counts are kept, if anywhere."""

    subject: Subject
    settings: Settings
    choices: Choices
    folder: Path | None

    def key(self) -> str:
        """Return a hash of everything that a draw's answer depends on: neither how many there are nor α."""
        subject, choices = self.subject, self.choices
        named = (str(subject.model.facts.sha256), subject.source.sha256(), subject.usage(), ids_digest(subject.ids))
        asked = (*named, float(choices.sigma), choices.first_draws, self.settings.seed)
        return hashlib.sha256(describe(asked).encode()).hexdigest()


def run(given: Mapping[str, Any], choices: Choices, *, as_json: bool) -> None:
    """Draw what is missing, write the counts and the result, and print certified accuracy at radii.

    Raises:
        UsageError: a parameter out of range, or a folder that holds counts of something else.
    """
    with console.Terminal() as terminal:
        require(sigma=choices.sigma, draws=choices.draws, first_draws=choices.first_draws, alpha=choices.alpha)
        radii = _radii(choices)
        settings, notes = resolve(given, remedy="write `steepest smooth MODEL DATA --sigma 0.25`")
        for note in notes:
            terminal.say(note)
        settings.batch()
        folder = _folder(settings.out)
        subject, _ = open_subject(settings, terminal)
        job = Job(subject=subject, settings=settings, choices=choices, folder=folder)
        began = time.perf_counter()
        counts = _drawn(job, terminal)
        found = concluded(
            counts,
            subject.source.labels[subject.ids],
            sigma=choices.sigma,
            draws=choices.draws,
            first_draws=choices.first_draws,
            alpha=choices.alpha,
        )
    summary = _summary(job, found, radii) | {"seconds": time.perf_counter() - began}
    if folder is not None:
        exports.write_json(folder / RESULT, summary | {"examples": _examples(subject, found)})
    if as_json:
        console.show_json(summary)
    else:
        _show(summary, folder)


def _radii(choices: Choices) -> list[float]:
    """Return the radii that were asked for, or four or more in even steps up to the largest possible one."""
    if choices.radii is not None:
        return [parse_number(part.strip()) for part in choices.radii.split(",")]
    largest, step = max(0.0, most(choices.sigma, choices.draws, choices.alpha)), 0.25
    while 0 < largest < 3 * step:
        step /= 2
    return [step * k for k in range(min(int(largest / step), 20) + 1)]


def _folder(out: str | None) -> Path | None:
    folder = None if out is None else Path(out).expanduser()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out!r} is a file: give a folder.")
    return folder


def _drawn(job: Job, progress: Progress) -> Counts:
    """Draw what is missing; the counts are written now and then, at the end, and when interrupted."""
    subject, choices, key = job.subject, job.choices, job.key()
    held = None if job.folder is None else _held(job.folder / STATE, key, choices)
    counts = held or Counts.none_yet(len(subject.ids), subject.model.facts.classes or 0)
    progress.begin("smooth", len(subject.ids) * (choices.first_draws + choices.draws))
    progress.advance(int(counts.drawn.sum()))
    wrote = time.monotonic()
    try:
        for place in torch.split(torch.arange(len(subject.ids)), _TOGETHER):
            for part in _parts(job, place, counts):
                done = int(part.drawn.sum() - counts.drawn[place].sum())
                counts.take(place, part)
                progress.advance(done)
                if time.monotonic() - wrote > _EVERY:
                    _keep(job.folder, counts, key)
                    wrote = time.monotonic()
    finally:
        _keep(job.folder, counts, key)
    progress.end()
    return counts


def _parts(job: Job, place: Tensor, counts: Counts) -> Iterator[Counts]:
    choices, ids = job.choices, job.subject.ids[place]
    x, _ = job.subject.batch(ids)
    return drawing(
        job.subject.model,
        x,
        sigma=choices.sigma,
        draws=choices.draws,
        first_draws=choices.first_draws,
        seed=job.settings.seed,
        ids=ids,
        counts=counts.rows(place),
        batch_size=job.settings.batch() or _BATCH,
    )


def _held(path: Path, key: str, choices: Choices) -> Counts | None:
    """Return the counts in a file; None where there is none."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            theirs = str(held["key"])
            counts = Counts(**{name: torch.from_numpy(held[name]) for name in ("selection", "estimation", "drawn")})
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{str(path)!r} is damaged ({error}): delete it, or give another --out.") from None
    if theirs != key:
        raise UsageError(
            f"{str(path)!r} holds the counts of another model, other data, sigma, first draws or seed: give another "
            "--out, or delete it."
        )
    most_drawn = int(counts.drawn.max()) - choices.first_draws
    if most_drawn > choices.draws:
        raise UsageError(
            f"{str(path)!r} holds {most_drawn} draws, more than --draws {choices.draws}: give at least as many, or "
            "another --out."
        )
    return counts


def _keep(folder: Path | None, counts: Counts, key: str) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {str(folder)!r} cannot be made ({error.strerror}): give another folder.") from None
    exports.replace(folder / STATE, partial(_written, counts=counts, key=key))


def _written(path: Path, *, counts: Counts, key: str) -> None:
    with path.open("wb") as file:  # a name without .npz would be given one
        np.savez_compressed(
            file,
            key=np.array(key),
            selection=counts.selection.numpy(),
            estimation=counts.estimation.numpy(),
            drawn=counts.drawn.numpy(),
        )


def _summary(job: Job, found: Smoothed, radii: list[float]) -> dict[str, Any]:
    choices = job.choices
    own = {"sigma": choices.sigma, "draws": choices.draws, "first-draws": choices.first_draws, "alpha": choices.alpha}
    words = [word for name, value in own.items() for word in (f"--{name}", f"{value:.17g}")]
    return {
        "n": len(found.right),
        "certifies": found.certifies,
        "assumptions": list(found.assumptions),
        "sigma": found.sigma,
        "draws": choices.draws,
        "first_draws": choices.first_draws,
        "alpha": found.alpha,
        "seed": job.settings.seed,
        "abstained": int((found.prediction < 0).sum()),
        "largest_possible_radius": found.most,
        "average_radius": float((found.radius * found.right).mean()),
        "certified": [
            {"radius": radius, "accuracy": share} for radius, share in zip(radii, found.certified(radii), strict=True)
        ],
        "command": command_line(["smooth", *words], job.settings),
    }


def _examples(subject: Subject, found: Smoothed) -> list[dict[str, Any]]:
    labels = subject.source.labels[subject.ids]
    columns = (subject.ids, labels, found.prediction, found.radius, found.p_low)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(("id", "label", "prediction", "radius", "p_low"), row, strict=True)) for row in rows]


def _show(summary: Mapping[str, Any], folder: Path | None) -> None:
    rows = [(size(row["radius"]), percent(row["accuracy"])) for row in summary["certified"]]
    console.show_table(("L2 radius", "certified accuracy"), rows)
    console.say()
    console.say(
        f"of {summary['certifies']}, σ = {summary['sigma']:g}, {count(summary['draws'])} draws; it abstains on "
        f"{summary['abstained']} of {summary['n']} examples"
    )
    console.say(
        f"each example with probability at least {1 - summary['alpha']:g}; no radius can exceed "
        f"{size(summary['largest_possible_radius'])} with so many draws"
    )
    console.say("nothing was written: give --out DIR" if folder is None else str(folder / RESULT))
