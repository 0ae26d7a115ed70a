"""Parquet files: image bytes as Hugging Face writes them, or columns of numbers, with a label column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from steepest.audit.data.adapt import require_ids
from steepest.audit.data.columns import Cursor, Plan, plan, read_labels
from steepest.audit.data.folder import image_notes
from steepest.audit.data.hashing import file_sha256
from steepest.audit.data.images import decode, probe
from steepest.basis.errors import DataError, UsageError

_PROBED = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParquetSource:
    """The examples of a Parquet file, read forwards in small pieces; a fetch of sorted ids is one pass at most."""

    path: Path
    cursor: Cursor
    plan: Plan
    shape: tuple[int, ...]
    resized: bool
    labels: Tensor
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    kind: str = "parquet"

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def __len__(self) -> int:
        """Return N."""
        return self.cursor.count

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` in that order, float32 [n, *shape]."""
        places, back = np.unique(require_ids(ids, len(self)), return_inverse=True)
        x = torch.empty(len(places), *self.shape)
        done = 0
        for first, piece, rows in self.cursor.pieces(places):
            x[done : done + len(rows)] = self._read(piece, rows, first)
            done += len(rows)
        return x[torch.from_numpy(back.reshape(-1))]

    def sha256(self) -> str:
        """Return the hash of the file."""
        return file_sha256(self.path)

    def _read(self, piece: pa.RecordBatch, rows: np.ndarray[Any, Any], first: int) -> Tensor:
        if not self.plan.image:
            columns = [_numbers(piece.column(name))[rows] for name in self.plan.columns]
            return torch.from_numpy(np.stack(columns, axis=1))
        images = piece.column(self.plan.columns[0])
        return torch.stack(
            [
                decode(raw, name=name, shape=self.shape, resize=self.resized)
                for raw, name in _cells(images, rows.tolist(), self.path, first)
            ]
        )


def open_parquet(
    path: Path, *, order: tuple[str, ...] | None = None, resize: tuple[int, int] | None = None
) -> ParquetSource:
    """Open a Parquet file with an image column or numeric feature columns, and a label column.

    The label column is read whole; examples when they are fetched. The images' size and colour are those of the
    first 32, or `resize`; a later image that differs is an error when it is fetched.

    Raises:
        DataError: a broken file, missing columns, no rows, labels that are null or do not fit.
        UsageError: `resize` for columns of numbers.
    """
    try:
        file = pq.ParquetFile(path)
        found = plan(file.schema_arrow, path)
        if not file.metadata.num_rows:
            raise DataError(f"{path} has no rows, so no example: give at least one.")
        labels, names, notes = read_labels(file, found, path, order)
    except pa.ArrowException as error:
        raise DataError(
            f"{path} is not a whole Parquet file ({str(error).strip()}): it may be truncated. Copy or write it again."
        ) from None
    cursor = Cursor(path, found.columns, [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    if found.image:
        shape, adapted = _image_shape(cursor, found, path, resize)
    elif resize is not None:
        raise UsageError(f"resize={resize} applies to images, but {path} has columns of numbers: leave --resize out.")
    else:
        shape, adapted = (len(found.columns),), ()
    return ParquetSource(
        path=path,
        cursor=cursor,
        plan=found,
        shape=shape,
        resized=resize is not None,
        labels=labels,
        class_names=names,
        notes=(*adapted, *found.notes, *notes),
    )


def image_bytes(value: pa.Scalar, path: Path, row: int) -> tuple[bytes, str]:
    """Return the encoded bytes of an image cell, and its name for messages.

    Raises:
        DataError: the cell is null, or holds a path alone.
    """
    name = f"{path}, row {row}"
    raw = value.as_py()
    if isinstance(raw, dict):
        name = f"{name} ({raw['path']})" if raw.get("path") else name
        raw = raw.get("bytes")
    if not isinstance(raw, bytes):
        raise DataError(f"{name} has no image bytes: embed them when writing the file, or remove the row.")
    return raw, name


def _image_shape(
    cursor: Cursor, found: Plan, path: Path, resize: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    probes = []
    for first, piece, rows in cursor.pieces(np.arange(min(_PROBED, cursor.count))):
        for raw, name in _cells(piece.column(found.columns[0]), rows.tolist(), path, first):
            probes.append(probe(raw, name=name))
    gray = all(image.gray for image in probes)
    return (1 if gray else 3, *(resize or probes[0].size)), image_notes(probes, resize)


def _cells(images: pa.Array, rows: list[int], path: Path, first: int) -> Iterator[tuple[bytes, str]]:
    for row in rows:
        yield image_bytes(images[row], path, first + row)


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    # A null becomes NaN, which the audit then reports as such.
    numbers: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    if numbers.dtype == object:
        numbers = np.array([np.nan if value is None else value for value in numbers])
    return numbers.astype(np.float32)
