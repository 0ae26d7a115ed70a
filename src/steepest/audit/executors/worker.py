"""What runs in another process: the order is opened there once, checked against the plan, then shard after shard."""

from __future__ import annotations

import os
import pickle
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch

from steepest.audit.contract import Plan
from steepest.audit.executors.contract import Task
from steepest.audit.order import Job, Order, opened
from steepest.audit.shard import Done, compute
from steepest.audit.store import RunFolder
from steepest.basis.errors import SteepestError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What a worker is sent.

    Attributes:
        order: packed; models that were loaded from a file are sent as the call that loads them.
        plan: whole; the worker must come to the same.
        folder: of the run.
        home: the working directory, from which relative paths count.
    """

    order: bytes
    plan: Plan
    folder: str
    home: str

    @classmethod
    def of(cls, task: Task) -> Parcel:
        """Return what a worker needs; raises as `Order.packed`."""
        place = task.folder.path
        folder = str(place.absolute() if isinstance(place, Path) else place)
        return cls(order=task.order.packed(), plan=task.job.plan, folder=folder, home=str(Path.cwd()))


@final
class Worker:
    """Computes shards of one run; model and data are opened at the first.

    Raises:
        UsageError: this machine does not see the run's folder, or its model, data or version is not the plan's.
    """

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._folder = RunFolder(parcel.folder)
        self._job: Job | None = None

    def compute(self, number: int) -> Done:
        """Compute and commit one shard."""
        if self._job is None:
            self._job = self._open()
        return compute(self._folder, self._job, number)

    def _open(self) -> Job:
        parcel, here = self._parcel, f"the worker on {platform.node()}"
        if Path(parcel.home).is_dir():
            os.chdir(parcel.home)
        torch.set_num_threads(parcel.plan.threads)
        if not self._folder.manifest_path.exists():
            raise UsageError(
                f"{here} does not see the run's folder {parcel.folder}: give an --out that all machines share, a "
                "shared folder or s3://bucket/path."
            )
        job = opened(_unpacked(parcel.order, here))
        differences = job.plan.differences(asdict(parcel.plan))
        if differences:
            raise UsageError(
                f"{here} opened something else than the plan says ({'; '.join(differences)}): give all machines the "
                "same files and the same version of steepest."
            )
        return job.planned(parcel.plan)


def _unpacked(order: bytes, here: str) -> Order:
    try:
        found = pickle.loads(order)
    except SteepestError:
        raise
    except Exception as error:  # the user's objects may raise anything
        raise UsageError(
            f"{here} cannot open what it was sent ({type(error).__name__}: {error}): what a script or a session "
            "defines is not there. Define it in a module that can be imported, or save the model and st.load it."
        ) from None
    assert isinstance(found, Order)
    return found
