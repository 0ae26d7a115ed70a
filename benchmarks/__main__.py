"""`python -m benchmarks [NAME ...] [--quick] [--write]`: measure, print, and keep the results in RESULTS.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.cascade import cascade
from benchmarks.certificates import certificates
from benchmarks.contract import Benchmark
from benchmarks.curve import curve
from benchmarks.executors import executors
from benchmarks.families import families
from benchmarks.gpu import gpu
from benchmarks.hardening import hardening
from benchmarks.memory import memory
from benchmarks.overhead import overhead
from benchmarks.passes import passes
from benchmarks.rendering import as_markdown, as_page
from benchmarks.rivals import rivals
from benchmarks.startup import startup
from benchmarks.steps import steps
from benchmarks.twin import twin

BENCHMARKS: dict[str, Benchmark] = {
    "passes": passes,
    "overhead": overhead,
    "steps": steps,
    "twin": twin,
    "rivals": rivals,
    "families": families,
    "curve": curve,
    "memory": memory,
    "executors": executors,
    "startup": startup,
    "gpu": gpu,
    "cascade": cascade,
    "certificates": certificates,
    "hardening": hardening,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; returns 1 if a target was missed and `--strict` was given."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    results = []
    for name in asked.names or list(BENCHMARKS):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results.append(BENCHMARKS[name](0.2 if asked.quick else 1.0))
        print(as_markdown(results[-1]), flush=True)
    if asked.write:
        command = " ".join(["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
        RESULTS.write_text(as_page(results, command), encoding="utf-8")
        print(f"written to {RESULTS.name}", file=sys.stderr)
    missed = [row for result in results for row in result.rows if row.reached is False]
    return 1 if missed and asked.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The speed ratios of this project.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which ones; all if left out")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds, for a first look")
    parser.add_argument("--write", action="store_true", help="keep the results in benchmarks/RESULTS.md")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target was missed")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch, 2 if left out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
