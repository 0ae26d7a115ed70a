"""One shard after another, here."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import final

import torch

from steepest.audit.executors.contract import Say, Task
from steepest.audit.order import Order
from steepest.audit.shard import Done, compute, threads


@final
@dataclass(frozen=True, slots=True)
class InProcess:
    """An `Executor` that needs no other process, so that models and data may exist in memory only."""

    def threads(self, order: Order) -> int:
        """See `Executor.threads`: all that torch was given."""
        return torch.get_num_threads()

    def map_shards(self, task: Task, numbers: Sequence[int], say: Say) -> Generator[Done, None, None]:
        """See `Executor.map_shards`."""
        with threads(task.job.plan.threads):
            for number in numbers:
                yield compute(task.folder, task.job, number)
