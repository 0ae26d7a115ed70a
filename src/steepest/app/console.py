"""What a person sees: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from steepest.report.wording import duration, plain

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
        self._began = self._spoke = self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self.end()

    def begin(self, task: str, total: int) -> None:
        """See `Progress.begin`."""
        self.end()
        self._task, self._total, self._done, self._first = task, total, 0, -1
        self._began = self._spoke = self._last = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            # Rich's own estimate needs two batches, and a batch may take minutes.
            texts = (_Left(self.left), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, *texts, console=self._console, transient=True)
            self._bar.start()
            self._bar.add_task(task, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        self._done += done
        self._first = self._done if self._first < 0 else self._first
        self._last = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=done, note=plain(note))
        elif time.monotonic() - self._spoke >= _EVERY:
            self._spoke = time.monotonic()
            self.say(f"{self._task}: {self._done} of {self._total}, {self.left()}{', ' if note else ''}{note}")

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

    def left(self) -> str:
        """Return the time left in words, estimated from this start alone: an earlier one's work took no time."""
        here = self._done - self._first
        if self._first < 0 or here <= 0:
            return "time left not known yet"
        seconds = (self._last - self._began) * (self._total - self._done) / here - (time.monotonic() - self._last)
        return f"about {duration(max(0.0, seconds))} left"


@final
class _Left(ProgressColumn):
    """The time left, asked anew whenever the bar is drawn."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        return Text(self._words())


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
