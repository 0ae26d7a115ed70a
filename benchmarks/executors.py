"""Two workers of one thread against one, whole audits of a network that is worth it."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import images, own_answer, resnet18
from steepest.audit.executors import Executor, InProcess, Pool

SHARDS, BATCH, STEPS = 6, 16, 20


def executors(effort: float = 1.0) -> Result:
    """Seconds of `st.audit` with a pool of two workers, of one, and without a pool; in turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool divides the threads of torch among its workers
    hands: dict[str, Executor] = {"in-process": InProcess(), "one": Pool(workers=1), "two": Pool(workers=2)}
    seconds: dict[str, list[float]] = {name: [] for name in hands}
    spent: dict[str, list[float]] = {name: [] for name in hands}
    with tempfile.TemporaryDirectory() as place:
        file = _written(Path(place) / "data.npz")
        for number in range(max(1, round(3 * effort))):
            records = []
            for name, executor in hands.items():
                begin, before_it = time.perf_counter(), _processor()
                records.append(_audited(file, Path(place) / f"{name}-{number}", executor).records())
                seconds[name].append(time.perf_counter() - begin)
                spent[name].append(_processor() - before_it)
            assert records[0] == records[1] == records[2]
    torch.set_num_threads(before)
    one, two = statistics.median(seconds["one"]), statistics.median(seconds["two"])
    pairs = (("two", "one", 0.6), ("one", "in-process", None))
    return Result(
        title="Two workers against one",
        note=f"Whole calls of `st.audit(..., attacks='pgd(steps={STEPS})', batch_size={BATCH})` of ResNet-18 from a "
        f"factory on {SHARDS * BATCH} images, the start of the processes and every worker's own look at model and data "
        f"included; each worker has one thread. One worker of a pool took {one:.0f} s, two {two:.0f} s. Records are "
        "compared and equal. Seconds of the processor show what the second worker costs, also on a busy machine: half "
        "of their ratio is the least that the time can come to.",
        rows=(
            *(
                Row(what=_NAMES[what], against=_NAMES[against], value=_ratio(seconds, what, against), target=target)
                for what, against, target in pairs
            ),
            Row(
                what="a pool of two workers, seconds of the processor",
                against=_NAMES["one"],
                value=_ratio(spent, "two", "one"),
            ),
        ),
    )


_NAMES = {"in-process": "in-process", "one": "a pool of one worker", "two": "a pool of two workers"}


def _processor() -> float:
    """Seconds of the processor of this process and of those that it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _ratio(seconds: dict[str, list[float]], what: str, against: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[what], seconds[against], strict=True))


def _written(file: Path) -> Path:
    x = images(SHARDS * BATCH, 3, 32, 32)
    levels = (x * 255).round().to(torch.uint8)
    np.savez(file, images=levels.numpy(), labels=own_answer(resnet18(), levels / 255))
    return file


def _audited(file: Path, out: Path, executor: Executor) -> st.AuditRun:
    return st.audit(
        st.load("benchmarks.nets:resnet18"), file, st.Linf(1e-4), attacks=f"pgd(steps={STEPS})", batch_size=BATCH,
        shard_size=BATCH, precision="exact", diagnose=False,
        out=out, executor=executor, allow_chance=True,
    )  # fmt: skip
