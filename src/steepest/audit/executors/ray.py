"""Actors of Ray, on one machine or many; each loads the model once."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from steepest.audit.executors.contract import Say, Task
from steepest.audit.executors.worker import Parcel, Worker
from steepest.audit.order import Order
from steepest.audit.shard import Done
from steepest.basis.errors import IncompleteError, UsageError

_PATIENCE = 10.0
"""Seconds after which an idle worker also takes the shard of a silent one, where none was slower so far."""

_SMALL = 50_000
"""Bytes of an order that Ray sends with a call."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """An `Executor` of Ray actors; every machine must see the model, the data and the run's folder.

    Ray restarts lost actors, elsewhere if need be, and asks them again. Where no shard is left, idle workers repeat
    the one that is waited for longest (backup tasks: Dean & Ghemawat 2004): it may wait for a node that never returns.

    Attributes:
        workers: as many as the cluster has processors (or GPUs) for if left out.
        address: of a cluster, "auto" for the one this machine belongs to; left out: one on this machine, for this run.
        gpus: of each worker; a share such as 0.5 is allowed.
        retries: how often an actor is restarted, a shard asked again, and an actor that is lost for good replaced.
    """

    workers: int | None = None
    address: str | None = None
    gpus: float = 0.0
    retries: int = 3

    def threads(self, order: Order) -> int:
        """See `Executor.threads`: OMP_NUM_THREADS, or one; the size of a cluster is no part of a plan."""
        order.packed()
        given = os.environ.get("OMP_NUM_THREADS", "1")
        return int(given) if given.isdecimal() and int(given) else 1

    def map_shards(self, task: Task, numbers: Sequence[int], say: Say) -> Generator[Done, None, None]:
        """See `Executor.map_shards`."""
        parcel = Parcel.of(task)
        with self._connected() as ray:
            # Small arguments travel with the call; from the object store a restarted actor might not get them again.
            sent = parcel if len(parcel.order) < _SMALL else ray.put(parcel)
            crew = _Crew(ray=ray, executor=self, parcel=sent, threads=parcel.plan.threads, say=say)
            crew.hire(min(self._workers(ray, parcel.plan.threads), len(numbers)))
            try:
                yield from crew.work(numbers)
            except ray.exceptions.RayError as error:
                raise IncompleteError(
                    f"the Ray cluster was lost ({type(error).__name__}): what is finished is kept. Run the same "
                    "command again; it continues where it stopped."
                ) from error
            finally:
                crew.dismiss()

    @contextmanager
    def _connected(self) -> Generator[Any, None, None]:
        """Ray, connected; a connection that the caller made is used and left as it is."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UsageError("the executor ray needs the package ray: pip install 'steepest[ray]'.") from None
        if ray.is_initialized():
            yield ray
            return
        dashboard = None if self.address else False
        try:
            ray.init(
                address=self.address or "local",
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = self.address or "this machine"
            raise UsageError(f"no Ray cluster at {where} ({str(error).splitlines()[0]}): check --address.") from None
        try:
            yield ray
        finally:
            ray.shutdown()

    def _workers(self, ray: Any, threads: int) -> int:
        """How many workers the cluster has room for, at most as many as were asked for.

        Raises:
            UsageError: not even one.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = [node.get("CPU", 0) // threads for node in nodes]
        if self.gpus:
            room = [min(few, node.get("GPU", 0) // self.gpus) for few, node in zip(room, nodes, strict=True)]
        if not sum(room):
            raise UsageError(
                f"no node of the cluster has {threads} processors and {self.gpus:g} GPUs for a worker: lower --gpus, "
                "or begin a new run with a smaller OMP_NUM_THREADS."
            )
        return min(self.workers or int(sum(room)), int(sum(room)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    actor: Any
    number: int
    since: float


class _Crew:
    """The actors of one run, and who is asked for what."""

    def __init__(self, *, ray: Any, executor: Ray, parcel: Any, threads: int, say: Say) -> None:
        self._ray, self._executor, self._parcel, self._say = ray, executor, parcel, say
        self._actor = ray.remote(Worker).options(
            num_cpus=threads,
            num_gpus=executor.gpus,
            max_restarts=executor.retries,
            max_task_retries=executor.retries,
        )
        self._idle: list[Any] = []
        self._asked: dict[Any, _Asked] = {}
        self._queue: deque[int] = deque()
        self._losses, self._slowest = 0, 0.0

    def hire(self, count: int) -> None:
        """Start actors."""
        self._idle += [self._actor.remote(self._parcel) for _ in range(count)]

    def work(self, numbers: Sequence[int]) -> Generator[Done, None, None]:
        """Yield each shard once, whoever finishes it first."""
        self._queue, left = deque(numbers), set(numbers)
        while left:
            self._give_out(left)
            for done in self._finished():
                if done.number in left:
                    left.remove(done.number)
                    self._losses = 0
                    yield done

    def dismiss(self) -> None:
        """Stop all actors at once, in the middle of a shard if need be."""
        for actor in [*self._idle, *(asked.actor for asked in self._asked.values())]:
            self._ray.kill(actor)

    def _give_out(self, left: set[int]) -> None:
        while self._idle and (number := self._next(left)) is not None:
            actor = self._idle.pop()
            asked = _Asked(actor=actor, number=number, since=time.monotonic())
            self._asked[actor.compute.remote(number)] = asked

    def _next(self, left: set[int]) -> int | None:
        """The next shard, or the one that a single worker has been silent about for very long."""
        if self._queue:
            return self._queue.popleft()
        waiting = sorted(self._asked.values(), key=lambda asked: asked.since)
        numbers = [asked.number for asked in waiting]
        patience = time.monotonic() - max(_PATIENCE, 3 * self._slowest)
        silent = [a.number for a in waiting if a.since < patience and a.number in left and numbers.count(a.number) == 1]
        return silent[0] if silent else None

    def _finished(self) -> Generator[Done, None, None]:
        """Wait a moment, and yield what was finished in it."""
        ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=1.0)
        for answer in ready:
            asked = self._asked.pop(answer)
            try:
                done = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                self._idle.append(asked.actor)
                # What the worker raised is the failure, not that it was raised elsewhere.
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.NodeDiedError) as error:
                self._replace(asked, error)
                continue
            self._idle.append(asked.actor)
            if done.unbroken is not None:
                self._slowest = max(self._slowest, time.monotonic() - asked.since)
            yield done

    def _replace(self, asked: _Asked, error: Exception) -> None:
        """Ray gave an actor up: its shard goes to another."""
        self._losses += 1
        if self._losses > self._executor.retries:
            raise IncompleteError(
                f"Ray lost {self._losses} workers in a row ({type(error).__name__}): what is finished is kept. Run the "
                "same command again; it continues where it stopped."
            ) from None
        self._say(f"Ray lost a worker; its shard is given out again ({self._losses} of {self._executor.retries})")
        self._queue.appendleft(asked.number)
        self.hire(1)
