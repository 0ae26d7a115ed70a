"""What an executor promises: a shard that it reports is committed, wherever it was computed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from steepest.audit.order import Job, Order
from steepest.audit.shard import Done
from steepest.audit.store import RunFolder

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A run to be worked on: where its shards go, what was asked, and the same opened, with the whole plan."""

    folder: RunFolder
    order: Order
    job: Job


class Executor(Protocol):
    """Computes shards; records depend on the plan alone, so any executor may continue what another began."""

    def threads(self, order: Order) -> int:
        """Return how many threads each worker of a new run gets; it is part of the plan.

        Raises:
            UsageError: the order cannot be sent to a worker; asked before anything is written.
        """

    def map_shards(self, task: Task, numbers: Sequence[int], say: Say) -> Generator[Done, None, None]:
        """Compute the shards `numbers` in any order, and yield each when it is committed.

        Closing the generator, or an exception in it, leaves no worker behind; what was committed stays.

        Raises:
            UsageError: a worker opened another model or other data, or does not see the run's folder.
            IncompleteError: workers were lost more often than is tried again; the same command continues.
        """
