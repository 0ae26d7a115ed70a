"""Whoever computes the shards, and whatever happens to them on the way, the records are those of an unbroken run."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import steepest as st
from steepest.audit.api import open_run
from steepest.audit.assurance import PROTOCOLS
from steepest.audit.executors import InProcess, Pool, Ray, executor_of
from steepest.audit.executors.contract import Task
from steepest.audit.executors.worker import Parcel, Worker
from steepest.audit.order import Order, Reopened, opened
from steepest.audit.parts import Part
from steepest.audit.run import begin
from steepest.audit.store import RunFolder
from steepest.basis.errors import UsageError
from tests.app.material import ASK, COUNT, answered, asked_json, steepest
from tests.app.test_resume import ATTACKS, SHARDS, WORDS, finished, same_records, started, stop


class Watcher:
    """A `Progress` that does something after so many shards, and remembers what was said."""

    def __init__(self, after: int, action: Callable[[], object]) -> None:
        self.after, self.action, self.said, self.shards = after, action, [], 0

    def begin(self, task: str, total: int) -> None:
        self.total, self.done = total, 0

    def advance(self, done: int, note: str = "") -> None:
        self.done += done
        self.shards += done > 0
        if done and self.shards == self.after:
            self.action()

    def say(self, message: str) -> None:
        self.said.append(message)

    def end(self) -> None:
        """Nothing is drawn."""


def audited(out: str | Path, **options: Any) -> st.AuditRun:
    """The audit of `WORDS`, in Python."""
    asked = {"attacks": ATTACKS, "batch_size": 4, "shard_size": 4, "precision": "exact", "seed": 2, "save": True}
    return st.audit(st.load("net.py:make"), "data.npz", st.Linf(0.1), out=out, **{**asked, **options})


def kill_one() -> None:
    """SIGKILL one of this process's workers."""
    victim = multiprocessing.active_children()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)


def order_of(**changed: Any) -> Order:
    model = st.load("net.py:make")
    asked = dict.fromkeys(("attacks", "certify", "target", "limit", "sample", "labels", "resize", "device"))
    asked |= {"preset": "quick", "objective": "scaled-ce", "seed": 2, "batch_size": 4, "save": True}
    asked |= {"shard_size": 4, "precision": "auto", "assure": 0, "diagnose": True, "allow_chance": False}
    asked |= {"data": "data.npz", "budget": st.Linf(0.1)}
    return Order(**{**asked, "model": Reopened(here=model, again=model.origin), **changed})


def parcel_of(order: Order, out: str) -> Parcel:
    folder = RunFolder(out)
    job, _ = begin(folder, opened(order), None, 1)
    return Parcel.of(Task(folder=folder, order=order, job=job))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_pool_that_loses_a_worker_gives_the_same_records(
    place: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    audited("reference")
    monkeypatch.setenv("SLOW_NET", "0.002")
    seen = Watcher(3, kill_one)
    audited("run", executor=Pool(workers=workers), progress=seen)
    assert any("a worker died; its shards are given out again (1 of 3)" in line for line in seen.said)
    assert seen.done == COUNT == seen.total  # every example counted once
    assert not multiprocessing.active_children()
    assert not list(Path("run").rglob("*.tmp"))
    same_records(place)
    a, b = (open_run(name).summary for name in ("run", "reference"))
    for stage in (*a["stages"], *b["stages"]):
        stage.pop("seconds")
    assert a["stages"] == b["stages"]


@pytest.mark.full
def test_a_pool_whose_workers_always_die_stops_and_can_be_continued(place: Path) -> None:
    """A network that kills its process, in workers only: the driver has looked at it before."""
    Path("deadly.py").write_text(
        "import multiprocessing, os, net\n"
        "def make():\n"
        "    if multiprocessing.parent_process() is not None:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return net.make()\n"
    )
    words = ("audit", "deadly.py:make", *WORDS[1:], "--out", "run")
    result = steepest(*words, "--executor", "pool", "--workers", "2", "--retries", "1")
    assert result.exit_code == 12, result.output
    assert "died 2 times in a row" in result.stderr and "Run the same command again" in result.stderr
    answered("audit", *WORDS, "--out", "reference")
    answered(*words)
    same_records(place)


@pytest.mark.full
def test_ctrl_c_stops_a_pool_and_another_executor_continues(place: Path) -> None:
    answered("audit", *WORDS, "--out", "reference")
    process = started(place, "--executor", "pool", "--workers", "2")
    code, said = stop(process, place, 3, signal.SIGINT, 0.05)
    assert code == 130
    assert "interrupted: the same command continues" in said and "Traceback" not in said
    assert 3 <= finished(place) < SHARDS
    assert not list((place / "run").rglob("*.tmp"))
    assert workers_below(process.pid) == []
    assert "continuing" in answered("audit", *WORDS, "--out", "run").stderr
    same_records(place)


@pytest.mark.full
def test_a_killed_driver_takes_its_workers_along(place: Path) -> None:
    process = started(place, "--executor", "pool", "--workers", "2")
    stop(process, place, 3, signal.SIGKILL, 0)
    limit = time.monotonic() + 30
    while (left := workers_below(process.pid)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert left == []


def workers_below(driver: int) -> list[str]:
    """The spawned processes that name this driver as their parent."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "multiprocessing.spawn" in line and f"parent_pid={driver}," in line]


@pytest.mark.full
def test_the_command_line_on_a_pool(place: Path) -> None:
    whole = asked_json("audit", *WORDS, "--out", "reference")
    found = asked_json("audit", *WORDS, "--out", "run", "--executor", "pool", "--workers", "2")
    same_records(place)
    assert found["robust_accuracy"] == whole["robust_accuracy"]
    assert "--executor pool --workers 2" in found["command"]


@pytest.mark.full
def test_a_model_in_memory_is_sent_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "deterministic", "autoattack(steps=2, queries=2)")
    torch.manual_seed(0)
    network, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval(), torch.rand(COUNT, 1, 4, 4)
    data = (x, network(x).argmax(1))
    # Each run would choose a twin by a measurement of its own.
    asked = {"preset": "quick", "batch_size": 16, "shard_size": 16, "precision": "exact", "assure": 5}
    runs = [
        st.audit(network, data, st.Linf(0.1), executor=executor, **asked) for executor in (InProcess(), Pool(workers=1))
    ]
    assert runs[0].records() == runs[1].records()
    assert runs[0].summary["assured"] == runs[1].summary["assured"]


def test_what_cannot_be_sent_is_named_with_its_remedy(place: Path) -> None:
    inside = st.Model(lambda x: x.flatten(1)[:, :3])
    with pytest.raises(UsageError, match=r"model cannot be sent .* Save it as .onnx"):
        st.audit(inside, "data.npz", st.Linf(0.1), executor=Pool(workers=1), allow_chance=True, out="run")
    assert not Path("run").exists()


def test_a_worker_refuses_another_model(place: Path) -> None:
    parcel = parcel_of(order_of(), "run")
    text = Path("net.py").read_text(encoding="utf-8")
    Path("net.py").write_text(text.replace("return Net()", "return Net(0.01)", 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"opened something else than the plan says \(model: \w+…\w+ → \w+…\w+"):
        Worker(parcel).compute(0)
    assert finished(place) == 0


def test_a_worker_refuses_a_folder_that_it_does_not_see(place: Path) -> None:
    parcel = parcel_of(order_of(), "run")
    shutil.rmtree("run")
    with pytest.raises(UsageError, match=r"does not see the run's folder .*run: give an --out that all machines share"):
        Worker(parcel).compute(0)
    assert not Path("run").exists()


def test_a_shard_that_is_there_is_not_computed_again(place: Path) -> None:
    worker = Worker(parcel_of(order_of(), "run"))
    assert worker.compute(2).unbroken is not None
    before = Path("run/results/part-00002.parquet").stat().st_mtime_ns
    assert worker.compute(2).unbroken is None
    assert Path("run/results/part-00002.parquet").stat().st_mtime_ns == before


def test_two_machines_on_one_run_change_no_record(place: Path) -> None:
    """One at work, another that begins the same run in the middle and finishes it: the first finds nothing to do."""
    audited("reference")
    second = Watcher(3, lambda: audited("run", batch_size=None))
    audited("run", progress=second)
    same_records(place)
    assert second.done == COUNT


def test_of_two_that_begin_at_once_one_plan_stands(place: Path) -> None:
    job = opened(order_of(batch_size=None))
    first, _ = begin(RunFolder("run"), job, None, 1)
    folder = RunFolder("run")
    folder.begin({"schema_version": 2, "plan": {}, "late": True})  # the loser's manifest is not written
    second, continued = begin(folder, job, None, 2)
    assert continued and second.plan == first.plan


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("pol", {}, "did you mean 'pool'"),
        ("pool", {"workers": 0}, "workers=0"),
        ("pool", {"address": "auto"}, "belong to the executor ray"),
        ("in-process", {"workers": 2}, "--executor pool"),
        ("ray", {"retries": -1}, "at least 0"),
    ],
)
def test_executors_that_do_not_exist(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        executor_of(name, **options)


def test_executors_by_name() -> None:
    assert executor_of("ray", gpus=0.5, retries=1) == Ray(gpus=0.5, retries=1)
    assert executor_of("pool", workers=3) == Pool(workers=3)


def test_two_parts_and_a_merge_equal_the_unbroken_run(place: Path) -> None:
    answered("audit", *WORDS, "--out", "reference")
    for part in ("1/2", "2/2"):
        result = answered("audit", *WORDS, "--out", part[0], "--shard", part)
        assert f"part {part} is finished" in result.stderr and result.stdout == ""
        assert not Path(part[0], "report.html").exists()
    assert {int(p.stem[5:]) % 2 for p in Path("1/results").iterdir()} == {0}
    result = steepest("runs", "merge", "run", "1")
    assert result.exit_code == 12 and f"{SHARDS // 2} of {SHARDS} shards" in result.stderr
    result = answered("runs", "merge", "run", "1", "2")
    assert "robust accuracy" in result.stdout and Path("run/report.html").exists()
    same_records(place)
    assert "--shard " not in asked_json("runs", "show", "run")["command"]


def test_parts_in_one_shared_folder_need_no_merge(place: Path) -> None:
    answered("audit", *WORDS, "--out", "reference")
    assert "part 1/2 is finished" in answered("audit", *WORDS, "--out", "run", "--shard", "1/2").stderr
    assert "robust accuracy" in answered("audit", *WORDS, "--out", "run", "--shard", "2/2").stdout
    same_records(place)


def test_the_sample_of_survivors_waits_for_all_parts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "deterministic", "autoattack(steps=2, queries=2)")
    words = ("audit", *ASK, "--attacks", "noise(points=1)", "--batch-size", "16", "--shard-size", "16")
    words = (*words, "--precision", "exact", "--save", "--assure", "9")
    whole = asked_json(*words, "--out", "reference")
    for part in ("1/2", "2/2"):
        answered(*words, "--out", part[0], "--shard", part)
        shared = answered(*words, "--out", "shared", "--shard", part, "--json")
    result = steepest("runs", "merge", "run", "1", "2")
    assert result.exit_code == 12 and "again, without --shard and with --out run;" in result.stderr, result.output
    found = [asked_json(*words, "--out", "run"), json.loads(shared.stdout)]
    assert all(each["assured"] == whole["assured"] and each["assured"]["broken"] for each in found)
    for name in ("run", "shared"):
        assert open_run(name).records() == open_run("reference").records()
    # A whole run is merged without its sample, and without the sample's pictures.
    assert steepest("runs", "merge", "again", "shared").exit_code == 12
    assert not RunFolder("again").arrays("*assured*.npz") and RunFolder("shared").arrays("*assured*.npz")


def test_parts_of_different_plans_are_not_merged(place: Path) -> None:
    answered("audit", *WORDS, "--out", "a", "--shard", "1/2")
    answered("audit", *WORDS, "--out", "b", "--shard", "2/2", "--seed", "3")
    answered("audit", *WORDS, "--out", "c", "--shard", "2/2", "--batch-size", "5")
    for other, difference in (("b", "seed: 2 → 3"), ("c", "batch_size: 4 → 5")):
        result = steepest("runs", "merge", "run", "a", other)
        assert result.exit_code == 2 and difference in result.stderr
    assert not Path("run").exists()
    result = steepest("runs", "merge", ".", "a")
    assert result.exit_code == 2 and "not empty and is not a run" in result.stderr


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b"])
def test_what_is_not_a_part(text: str) -> None:
    with pytest.raises(UsageError, match="give i/n"):
        Part.parse(text)


def test_parts_are_disjoint_and_whole() -> None:
    for count in (1, 2, 3, 7):
        parts = [Part.parse(f"{i}/{count}").of(10) for i in range(1, count + 1)]
        assert sorted(number for part in parts for number in part) == list(range(10))


def test_a_part_needs_a_batch_size(place: Path) -> None:
    result = steepest("audit", *ASK, "--shard", "1/2", "--out", "run")
    assert result.exit_code == 2 and "needs batch_size=N" in result.stderr
    assert not Path("run").exists()


def test_the_default_folder_does_not_depend_on_who_computes(place: Path) -> None:
    answered("audit", *WORDS)
    before = sorted(Path("runs").iterdir())
    assert f"continuing: {COUNT // 3} of {COUNT // 3}" in answered("audit", *WORDS, "--shard", "1/3").stderr
    assert sorted(Path("runs").iterdir()) == before
