"""Who computes the shards of an audit: this process, a pool of processes, or Ray's actors; records do not differ.

>>> executor_of("pool", workers=2)
Pool(workers=2, retries=3)
"""

from __future__ import annotations

from steepest.audit.executors.contract import Executor
from steepest.audit.executors.in_process import InProcess
from steepest.audit.executors.pool import Pool
from steepest.audit.executors.ray import Ray
from steepest.basis.errors import UsageError, unknown

__all__ = ["Executor", "InProcess", "Pool", "Ray", "executor_of"]

NAMES = ("in-process", "pool", "ray")


def executor_of(
    name: str, *, workers: int | None = None, address: str | None = None, gpus: float = 0.0, retries: int = 3
) -> Executor:
    """Return the executor called `name`.

    Args:
        workers: how many; as many as there are processors if left out.
        address: of a Ray cluster.
        gpus: of each Ray worker.
        retries: how often lost work is tried again.

    Raises:
        UsageError: no such executor, or an argument that does not apply to it.
    """
    if name not in NAMES:
        raise unknown("executor", name, NAMES)
    if workers is not None and workers < 1:
        raise UsageError(f"workers={workers} is not allowed: give at least 1.")
    if retries < 0 or gpus < 0:
        raise UsageError(f"retries={retries}, gpus={gpus:g} is not allowed: give at least 0.")
    if name != "ray" and (address is not None or gpus):
        raise UsageError(f"address and gpus belong to the executor ray, not to {name}: leave them out.")
    if name == "ray":
        return Ray(workers=workers, address=address, gpus=gpus, retries=retries)
    if name == "pool":
        return Pool(workers=workers, retries=retries)
    if workers is not None:
        raise UsageError(f"workers={workers} needs the executor pool or ray: add --executor pool.")
    return InProcess()
