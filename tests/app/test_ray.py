"""Ray's actors compute the records of one process, also when a node and an actor are lost on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steepest.audit.executors import Ray
from steepest.audit.executors import ray as room
from steepest.audit.executors.worker import Worker
from steepest.basis.errors import UsageError
from tests.app.material import COUNT, answered
from tests.app.test_executors import WORDS, Watcher, audited
from tests.app.test_resume import SHARDS, finished, same_records, started, stop
from tests.architecture.tree import SOURCE

pytest.importorskip("ray")


@pytest.fixture
def apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run, where Ray's processes find this source and start no more threads than they must."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # What beartype adds to classes under test is no method that Ray could ask for.
    monkeypatch.delattr(Worker, "__sizeof__", raising=False)
    return place


@pytest.mark.full
def test_one_actor_gives_the_same_records(apart: Path) -> None:
    import ray

    audited("reference")
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)
    try:
        seen = Watcher(-1, lambda: None)
        audited("run", executor=Ray(workers=4), progress=seen)
        assert seen.done == COUNT
        assert ray.is_initialized()  # a connection of the caller's stays the caller's
        with pytest.raises(UsageError, match="no node of the cluster has 1 processors and 2 GPUs"):
            audited("other", executor=Ray(gpus=2))
    finally:
        ray.shutdown()
    same_records(apart)


@pytest.fixture
def cluster(apart: Path) -> Iterator[Any]:
    """Three nodes with one processor each, on this machine; the first holds what the cluster knows of itself."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    made.others = [made.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.full
def test_three_nodes_give_the_same_records(apart: Path, cluster: Any) -> None:
    answered("audit", *WORDS, "--out", "reference")
    answered("audit", *WORDS, "--out", "run", "--executor", "ray", "--address", cluster.address, "--workers", "3")
    same_records(apart)


@pytest.mark.full
def test_a_node_and_an_actor_lost_in_the_middle_change_no_record(
    apart: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited("reference")
    monkeypatch.setattr(room, "_PATIENCE", 3.0)
    slow(apart)

    def lose() -> None:
        cluster.remove_node(cluster.others[0], allow_graceful=False)
        left = actors()
        assert left
        os.kill(left[0], signal.SIGKILL)

    seen = Watcher(4, lose)
    audited("run", executor=Ray(address=cluster.address, workers=3), progress=seen)
    assert seen.done == COUNT
    same_records(apart)


def slow(place: Path) -> None:
    """Make the network slow in whatever process opens it: the workers do not inherit this one's environment."""
    text = Path(place, "net.py").read_text(encoding="utf-8")
    Path(place, "net.py").write_text(text.replace('get("SLOW_NET", "0")', 'get("SLOW_NET", "0.004")'), encoding="utf-8")


def actors() -> list[int]:
    """The processes in which workers of Ray compute."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_text() if entry.name.isdecimal() else ""
        except OSError:
            continue
        if title.startswith("ray::Worker"):
            found.append(int(entry.name))
    return found


@pytest.mark.full
def test_ctrl_c_stops_the_actors_and_another_executor_continues(apart: Path) -> None:
    answered("audit", *WORDS, "--out", "reference")
    before = set(actors())
    process = started(apart, "--executor", "ray", "--workers", "2")
    code, said = stop(process, apart, 3, signal.SIGINT, 0.05)
    assert code == 130, said
    assert "interrupted: the same command continues" in said and "Traceback" not in said
    assert 3 <= finished(apart) < SHARDS
    time.sleep(1)
    assert set(actors()) <= before
    assert "continuing" in answered("audit", *WORDS, "--out", "run").stderr
    same_records(apart)


@pytest.mark.full
def test_what_a_worker_refuses_is_what_the_driver_says(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network answers otherwise in processes of Ray."""
    text = Path("net.py").read_text(encoding="utf-8")
    text += "\nhere = make\ndef make():\n"
    text += "    return Net(0.5) if 'ray::' in open('/proc/self/cmdline').read() else here()\n"
    Path("net.py").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="opened something else than the plan says"):
        audited("run", executor=Ray(workers=1))
    assert not actors()
