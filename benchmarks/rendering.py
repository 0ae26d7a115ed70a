"""Results as Markdown, from the measured values alone."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.contract import Result, Row

LIBRARIES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "cleverhans")


def as_markdown(result: Result) -> str:
    """Return one result as a section with a table."""
    lines = [f"## {result.title}", "", result.note, ""]
    if result.table is not None:
        divider = ("---",) * len(result.table.header)
        lines += [f"| {' | '.join(cells)} |" for cells in (result.table.header, divider, *result.table.lines)] + [""]
    if result.rows:
        lines += ["| what | against | measured | middle half | target | reached |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(_line(row) for row in result.rows), ""])


def _line(row: Row) -> str:
    spread = f"{row.spread[0]:.3f} to {row.spread[1]:.3f}" if row.spread else ""
    target = "" if row.target is None else f"{'at least' if row.at_least else 'at most'} {row.target:g}"
    reached = {None: "", True: "yes", False: "no"}[row.reached]
    number = f"{row.value:.3f} {row.unit}" if row.unit in ("×", "s") else f"{row.value:g} {row.unit}"
    return f"| {row.what} | {row.against} | {number} | {spread} | {target} | {reached} |"


def as_page(results: Sequence[Result], command: str) -> str:
    """Return all results with the machine, the versions and the command that measured them."""
    head = [
        "# Results",
        "",
        "Ratios are medians of pairs taken within one round of one run; contenders take turns. 1.05 × means 5 % more "
        "time. Smaller is better unless the target says 'at least'.",
        "",
        f"- measured by `{command}` on {datetime.now(UTC):%Y-%m-%d}",
        f"- machine: {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        f"- Python {platform.python_version()}, torch {torch.__version__}{_versions()}",
        "",
        "",
    ]
    return "\n".join(head) + "\n".join(as_markdown(result) for result in results)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f", {name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "".join(found)
