"""What every source of labelled examples promises, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """Labelled examples with random access; the example id is the position in the data.

    Labels are held whole; examples are read when they are asked for, so memory does not grow with their number
    (tensors that the caller holds already stay the caller's).
    """

    @property
    def name(self) -> str:
        """The path, or a description of an object in memory."""

    @property
    def kind(self) -> str:
        """One of npz, folder, parquet, digits, image, tensors, dataset."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, as `fetch` returns it."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], all of them; -1 means unknown, and only a single image may have it."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of the label indices, where they are known."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that was adapted, ignored or should be known by a reader."""

    def __len__(self) -> int:
        """Return N."""

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` [n] in that order: float32 [n, *shape] on the CPU, in data units.

        Tensors that the caller handed over keep their own floating type and device.

        Raises:
            UsageError: an id lies outside 0..N-1.
            DataError: an example cannot be read; names the file.
        """

    def sha256(self) -> str:
        """Return the hash of the bytes that the examples come from (64 hex characters), read as a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some examples of a source.

    Attributes:
        ids: int64 [n], positions in the data.
        x: [n, *shape], in data units.
        y: int64 [n].
    """

    ids: Tensor
    x: Tensor
    y: Tensor
