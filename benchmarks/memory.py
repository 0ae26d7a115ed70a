"""Peak memory of an audit, 1,000 examples against 10,000, each in a process of its own."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import images, own_answer, small_cnn
from benchmarks.timing import rounds_of

FEW, MANY = 1_000, 10_000


def memory(effort: float = 1.0) -> Result:
    """The peak of the resident set after `st.audit` of an .npz file."""
    peaks: dict[int, list[int]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory() as place:
        files = {count: _written(Path(place) / f"{count}.npz", count) for count in peaks}
        for _ in range(rounds_of(3, effort)):
            for count, file in files.items():
                command = [sys.executable, "-m", "benchmarks.memory", str(file)]
                asked = subprocess.run(command, capture_output=True, text=True, check=True)
                peaks[count].append(int(asked.stdout.split()[-1]))
    value = statistics.median(peaks[MANY]) / statistics.median(peaks[FEW])
    few, many = (statistics.median(peaks[count]) / 1024 for count in (FEW, MANY))
    return Result(
        title="Peak memory of an audit",
        note=f"`st.audit(..., preset='quick', batch_size=256)` of 28×28 grey images in an .npz file on the small CNN, "
        f"largest resident set of the process: {few:.0f} MB for {FEW:,} examples, {many:.0f} MB for {MANY:,}.",
        rows=(Row(what=f"peak with {MANY:,} examples", against=f"with {FEW:,}", value=value, target=1.05),),
    )


def _written(file: Path, count: int) -> Path:
    x = images(count, 1, 28, 28)
    labels = torch.cat([own_answer(small_cnn(), part) for part in x.split(1000)])
    np.savez(file, images=(x * 255).round().to(torch.uint8).squeeze(1).numpy(), labels=labels.numpy())
    return file


def audited(file: str) -> int:
    """Audit a file and return the peak of this process's resident set, in kilobytes."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        model = st.Model(small_cnn(), box=(0, 1))
        st.audit(model, file, st.Linf(1e-3), preset="quick", batch_size=256, out=Path(place) / "run", allow_chance=True)
    return _peak()


def _peak() -> int:
    # Linux hands ru_maxrss of the caller on to a program that it starts: a large parent would hide every growth.
    status = Path("/proc/self/status")
    if status.exists():
        found = [line.split()[1] for line in status.read_text(encoding="utf-8").splitlines() if line[:6] == "VmHWM:"]
        if found:
            return int(found[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    print(audited(sys.argv[1]))
