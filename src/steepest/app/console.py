"""What a person sees: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from steepest.report.wording import plain

_EVERY = 30.0
"""Seconds between two lines of progress where no bar can be drawn."""


@final
class Terminal:
    """A `basis.progress.Progress` on stderr: a bar on a terminal, elsewhere a line about every 30 seconds.

    Used as a context, so that an exception leaves no half-drawn bar behind.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task, self._total, self._done, self._first = "", 0, 0, 0
        self._began = self._spoke = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self.end()

    def begin(self, task: str, total: int) -> None:
        """See `Progress.begin`."""
        self.end()
        self._task, self._total, self._done, self._first = task, total, 0, -1
        self._began = self._spoke = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            times = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            # A batch may take longer than Rich's usual memory of 30 seconds.
            self._bar = Progress(
                *columns, *times, console=self._console, transient=True, speed_estimate_period=24 * 3600
            )
            self._bar.start()
            self._bar.add_task(task, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        self._done += done
        self._first = self._done if self._first < 0 else self._first
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=done, note=plain(note))
        elif time.monotonic() - self._spoke >= _EVERY:
            self._spoke = time.monotonic()
            self.say(f"{self._task}: {self._done} of {self._total}, {self._left()}{', ' if note else ''}{note}")

    def say(self, message: str) -> None:
        """See `Progress.say`."""
        if self._console.is_terminal:
            self._console.print(Text(plain(message)), soft_wrap=True)
        else:
            print(plain(message), file=sys.stderr, flush=True)

    def end(self) -> None:
        """See `Progress.end`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _left(self) -> str:
        """Estimate from this start alone: what an earlier one finished took no time."""
        here = self._done - self._first
        if here <= 0:
            return "time left not known yet"
        seconds = (time.monotonic() - self._began) * (self._total - self._done) / here
        return f"about {seconds:.0f} s left"


def say(message: str = "") -> None:
    """Print one line of the result to stdout; what would steer a terminal is replaced."""
    print(plain(message), flush=True)


def show_json(record: Any) -> None:
    """Print one JSON object to stdout."""
    print(json.dumps(record, ensure_ascii=False, allow_nan=False), flush=True)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout: folded to the width of a terminal, elsewhere aligned and never cut."""
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    right = [bool(cells) and all(_NUMBER.fullmatch(row[place]) for row in cells) for place in range(len(head))]
    if sys.stdout.isatty():
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title, numeric in zip(head, right, strict=True):
            drawn.add_column(Text(title), justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max(len(row[place]) for row in [list(head), *cells]) for place in range(len(head))]
    for row in [list(head), *cells]:
        parts = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


_NUMBER = re.compile(r"[-–\d.,/]+(\s?(%|s))?|not measured|")


def on_terminal() -> bool:
    """Return whether stdout is read by a person."""
    return sys.stdout.isatty()
