"""Which examples of a source are used, and what they look like before a run starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.audit.data.contract import Batch, Source
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream


def select(source: Source, *, limit: int | None = None, sample: int | None = None, seed: int = 0) -> Tensor:
    """Return the ids of the examples to use, int64, ascending.

    `limit` takes the first ones. `sample` draws without replacement, from each class in proportion to its size
    (largest remainders; ties go to the lower class), and depends on `seed`, labels and N alone: the same on every
    machine. More than there are means all.

    Raises:
        UsageError: both are given, or a number below 1.
    """
    if limit is not None and sample is not None:
        raise UsageError(
            f"limit={limit} and sample={sample} exclude each other: give --limit for the first examples, or --sample "
            "for a random draw."
        )
    for name, number in (("limit", limit), ("sample", sample)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise UsageError(f"{name}={number!r} is not a number of examples: give a whole number of at least 1.")
    count = len(source)
    if sample is None or sample >= count:
        return torch.arange(count if limit is None else min(limit, count))
    return _stratified(source.labels, sample, seed)


def _stratified(labels: Tensor, total: int, seed: int) -> Tensor:
    _, group, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    # Integers throughout: shares as floats could tie differently on another machine.
    quota, remainder = sizes * total // len(labels), sizes * total % len(labels)
    extra = total - int(quota.sum())
    quota[np.argsort(-remainder, kind="stable")[:extra]] += 1
    draw = Stream.of(seed, torch.arange(len(labels))).uniform(0, (1,))[:, 0].numpy()
    chosen = []
    for number, share in enumerate(quota.tolist()):
        members = np.flatnonzero(group == number)
        chosen.append(members[np.argsort(draw[members], kind="stable")[:share]])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def batches(source: Source, ids: Tensor, *, size: int) -> Iterator[Batch]:
    """Yield the examples `ids` in their order, `size` at a time; memory is one batch.

    Raises:
        UsageError: `size` is below 1.
    """
    if size < 1:
        raise UsageError(f"size={size} is not a batch size: give a whole number of at least 1.")
    for first in range(0, len(ids), size):
        part = ids[first : first + size]
        yield Batch(ids=part, x=source.fetch(part), y=source.labels[part])


def preview(source: Source, ids: Tensor) -> dict[str, Any]:
    """Return what the chosen examples are: n, shape, classes present, counts per class, whether only one class.

    Keys: `n`, `shape`, `classes` (ascending indices), `counts` {index: examples}, `one_class`.
    """
    present, sizes = np.unique(source.labels[ids].numpy(), return_counts=True)
    counts = dict(zip(present.tolist(), sizes.tolist(), strict=True))
    return {
        "n": len(ids),
        "shape": tuple(source.shape),
        "classes": list(counts),
        "counts": counts,
        "one_class": len(counts) == 1,
    }
