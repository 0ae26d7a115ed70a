"""A pool of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import final

import torch

from steepest.audit.executors.contract import Say, Task
from steepest.audit.executors.worker import Parcel, Worker
from steepest.audit.order import Order
from steepest.audit.shard import Done
from steepest.basis.errors import IncompleteError

_GRACE = 5.0
"""Seconds that a worker has to stop before it is killed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """An `Executor` of processes that are started afresh, each with its own copy of the model.

    Attributes:
        workers: as many as torch has threads if left out; the threads are divided among them.
        retries: how often in a row, without a shard finished in between, lost workers are replaced.
    """

    workers: int | None = None
    retries: int = 3

    def threads(self, order: Order) -> int:
        """See `Executor.threads`: the threads of torch, divided."""
        order.packed()
        return max(1, torch.get_num_threads() // self._workers())

    def map_shards(self, task: Task, numbers: Sequence[int], say: Say) -> Generator[Done, None, None]:
        """See `Executor.map_shards`; a worker that dies takes its shards with it, and they are given out again."""
        parcel, left, losses = Parcel.of(task), dict.fromkeys(numbers), 0
        while left:
            try:
                for done in self._round(parcel, list(left)):
                    del left[done.number]
                    losses = 0
                    yield done
            except BrokenProcessPool:
                losses += 1
                if losses > self.retries:
                    raise IncompleteError(
                        f"a worker died {losses} times in a row, killed from outside or for lack of memory; "
                        f"{len(left)} shards are left, what is finished is kept. Run the same command again, perhaps "
                        "with fewer --workers; it continues. (A script must audit under if __name__ == '__main__'.)"
                    ) from None
                say(f"a worker died; its shards are given out again ({losses} of {self.retries})")

    def _workers(self) -> int:
        return self.workers or torch.get_num_threads()

    def _round(self, parcel: Parcel, numbers: list[int]) -> Generator[Done, None, None]:
        """Compute shards until all are done or a worker dies."""
        with _pool(min(self._workers(), len(numbers)), parcel) as pool:
            futures = [pool.submit(_compute, number) for number in numbers]
            for future in as_completed(futures):
                yield future.result()


@contextmanager
def _pool(workers: int, parcel: Parcel) -> Generator[ProcessPoolExecutor, None, None]:
    """A pool whose processes are gone afterwards, whatever happens."""
    # Spawned: a fork would copy the locks of torch's threads.
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(parcel,))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _stop(set(multiprocessing.active_children()) - others)
        raise


def _stop(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


_worker: Worker | None = None


def _begin(parcel: Parcel) -> None:
    """Make this process a worker; what opening raises must reach the driver, so that waits for the first shard."""
    global _worker
    _worker = Worker(parcel)
    # Ctrl-C reaches every process of a terminal; the driver alone answers it, by a request to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A driver that was killed cannot ask its workers to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compute(number: int) -> Done:
    assert _worker is not None
    return _worker.compute(number)
