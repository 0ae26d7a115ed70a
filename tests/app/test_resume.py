"""A run that was killed at any moment and started again ends in the records of an unbroken one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steepest.audit.store import RunFolder
from tests.app.material import ASK, COUNT, answered
from tests.architecture.tree import SOURCE

ATTACKS = "fgsm, apgd(steps=5), noise(points=3)"
# How fast the network is differs between these processes, and with it the twin that would be chosen.
HOW = ("--attacks", ATTACKS, "--batch-size", "4", "--shard-size", "4", "--precision", "exact")
WORDS = (*ASK, *HOW, "--seed", "2", "--save")
SHARDS = COUNT // 4


def started(place: Path, *more: str) -> subprocess.Popen[str]:
    """The same audit in a process of its own, with a model slow enough to be met at work."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "SLOW_NET": "0.003", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "steepest", "audit", *WORDS, *more, "--out", "run"]
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell's background job ignores Ctrl-C and hands that on: the audit is started as a terminal would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finished(place: Path) -> int:
    return len(list((place / "run" / "results").glob("part-*.parquet")))


def stop(process: subprocess.Popen[str], place: Path, parts: int, how: signal.Signals, wait: float) -> tuple[int, str]:
    """Wait until `parts` shards are finished and a little more, then send a signal; return the code and stderr."""
    limit = time.monotonic() + 60
    while finished(place) < parts and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def same_records(place: Path) -> None:
    """Compare every column of the records, the kept points, and the summary apart from times."""
    broken, whole = (RunFolder(place / name) for name in ("run", "reference"))
    assert broken.table(SHARDS).equals(whole.table(SHARDS))
    for part in range(SHARDS):
        assert pq.read_table(broken.part(part)).equals(pq.read_table(whole.part(part)))
    for pattern in ("gallery-*.npz", "adversarial-*.npz"):
        mine, theirs = broken.arrays(pattern), whole.arrays(pattern)
        assert [file.name for file in mine] == [file.name for file in theirs]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(mine, theirs, strict=True))


def killed_and_resumed(place: Path, moments: int, seed: int) -> None:
    draw = random.Random(seed)
    answered("audit", *WORDS, "--out", "reference")
    targets = sorted(draw.sample(range(SHARDS - 1), moments))
    for parts in targets:
        code, _ = stop(started(place), place, parts, signal.SIGKILL, draw.uniform(0, 0.2))
        assert code == -signal.SIGKILL
    done = finished(place)
    assert targets[-1] <= done < SHARDS  # it was met at work
    result = answered("audit", *WORDS, "--out", "run")
    assert f"continuing: {4 * done} of {COUNT}" in result.stderr
    same_records(place)


def test_a_run_killed_three_times(place: Path) -> None:
    killed_and_resumed(place, 3, seed=0)


@pytest.mark.full
def test_a_run_killed_ten_times(place: Path) -> None:
    killed_and_resumed(place, 10, seed=1)


def test_ctrl_c_gives_130_and_the_same_command_continues(place: Path) -> None:
    answered("audit", *WORDS, "--out", "reference")
    code, said = stop(started(place), place, 3, signal.SIGINT, 0.05)
    assert code == 130
    assert "interrupted: the same command continues" in said and "Traceback" not in said
    assert 3 <= finished(place) < SHARDS
    assert not list((place / "run").rglob("*.tmp"))
    assert "continuing" in answered("audit", *WORDS, "--out", "run").stderr
    same_records(place)
    manifest = json.loads((place / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["plan"]["batch_size"] == 4
