"""How long the command line takes to say what it can do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.contract import Result, Row
from benchmarks.timing import rounds_of

HELP = [sys.executable, "-m", "steepest", "--help"]
BARE = [sys.executable, "-c", "0"]
IMPORTS = [sys.executable, "-X", "importtime", "-m", "steepest", "--help"]


def startup(effort: float = 1.0) -> Result:
    """`steepest --help`, in seconds from the call to the end of the process."""
    title = "`steepest --help`"
    if subprocess.run(HELP, capture_output=True).returncode != 0:
        return Result(title=title, note="`python -m steepest --help` does not run here; nothing was measured.", rows=())
    help_times, bare_times = [], []
    for _ in range(rounds_of(15, effort)):
        help_times.append(_seconds(HELP))
        bare_times.append(_seconds(BARE))
    told = subprocess.run(IMPORTS, capture_output=True, text=True).stderr
    imported = any(line.split("|")[-1].strip() == "torch" for line in told.splitlines())
    return Result(
        title=title,
        note=f"`python -m steepest --help`; torch is {'' if imported else 'not '}imported. "
        f"An empty Python takes {statistics.median(bare_times):.3f} s of it.",
        rows=(
            Row(what="`steepest --help`", against="the clock", value=statistics.median(help_times), target=0.3,
                unit="s", spread=(min(help_times), max(help_times))),
            Row(what="torch imported", against="the clock", value=float(imported), target=0, unit="times"),
        ),
    )  # fmt: skip


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - begin
