"""The columns of a Parquet file: which are examples, which are labels, and how to walk them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from steepest.audit.data.labels import Named, from_names, in_order, label_indices
from steepest.basis.errors import DataError

_IMAGES = ("image", "images", "img", "x")
_LABELS = ("label", "labels", "y")
_PIECE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which columns are used.

    Attributes:
        image: the examples are encoded images in the one column of `columns`; else each column is a feature.
        columns: in the order of the file.
        label: the label column.
        class_names: as Hugging Face stores them in the schema, or None.
        notes: what was ignored.
    """

    image: bool
    columns: tuple[str, ...]
    label: str
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]


def plan(schema: pa.Schema, path: Path) -> Plan:
    """Return which columns of a file with this schema hold examples and labels.

    Raises:
        DataError: there is no label column, or neither an image column nor a numeric one; lists the columns.
    """
    label = next((name for name in _LABELS if name in schema.names), None)
    if label is None:
        raise _missing(schema, path, f"no label column ({', '.join(_LABELS)})")
    names = _class_names(schema, label)
    image = next((name for name in _IMAGES if name in schema.names and _is_image(schema.field(name).type)), None)
    if image is not None:
        return Plan(image=True, columns=(image,), label=label, class_names=names, notes=())
    features: list[str] = []
    ignored: list[str] = []
    for field in schema:
        if field.name == label:
            continue
        # The row numbers that pandas stores beside the data are no feature.
        numeric = _is_number(field.type) and not field.name.startswith("__index_level_")
        (features if numeric else ignored).append(field.name)
    if not features:
        raise _missing(schema, path, f"neither image bytes ({', '.join(_IMAGES)}) nor columns of numbers")
    notes = [f"Features, in the order of the file: {', '.join(features[:8])}{', ...' if len(features) > 8 else ''}."]
    if ignored:
        notes.append(f"Columns that are not numbers or are row numbers were ignored: {', '.join(ignored)}.")
    return Plan(image=False, columns=tuple(features), label=label, class_names=names, notes=tuple(notes))


def read_labels(file: pq.ParquetFile, found: Plan, path: Path, order: tuple[str, ...] | None) -> Named:
    """Return the labels of the whole file as indices.

    Raises:
        DataError: a label is null, or does not fit.
    """
    column = file.read(columns=[found.label]).column(found.label).combine_chunks()
    where = f"{path}, column {found.label!r}"
    if column.null_count:
        first = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"{where}: {column.null_count} rows have no label (first: row {first}); remove them or fill them in."
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        coded = pc.dictionary_encode(column)
        index = torch.from_numpy(coded.indices.to_numpy().astype(np.int64))
        return from_names(coded.dictionary.to_pylist(), index, order, where=where)
    labels = label_indices(column.to_numpy(zero_copy_only=False), count=file.metadata.num_rows, where=where)
    return in_order(labels, found.class_names, order, where=where)


@final
class Cursor:
    """Walks columns of a Parquet file forwards in pieces of at most 32 rows; going back starts the row group again.

    A row group of any size is streamed: memory is one page of the file (pyarrow writes at most 1,024 rows in one).
    """

    def __init__(self, path: Path, columns: tuple[str, ...], groups: list[int]) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16)
        self._path, self._columns = path, list(columns)
        self._starts = np.cumsum([0, *groups])
        self._walk: Iterator[pa.RecordBatch] = iter(())
        self._piece: pa.RecordBatch | None = None
        self._first = self._group = -1

    @property
    def count(self) -> int:
        """The number of rows."""
        return int(self._starts[-1])

    def pieces(self, places: NDArray[np.int64]) -> Iterator[tuple[int, pa.RecordBatch, NDArray[np.int64]]]:
        """Yield (number of the first row, piece, wanted rows in the piece) for sorted, distinct `places`.

        Raises:
            DataError: the file cannot be read on.
        """
        done = 0
        while done < len(places):
            piece = self._reach(int(places[done]))
            stop = int(np.searchsorted(places, self._first + piece.num_rows))
            yield self._first, piece, places[done:stop] - self._first
            done = stop

    def _reach(self, place: int) -> pa.RecordBatch:
        group = int(np.searchsorted(self._starts, place, side="right")) - 1
        try:
            if group != self._group or self._piece is None or place < self._first:
                self._walk = self._file.iter_batches(
                    batch_size=_PIECE, row_groups=[group], columns=self._columns, use_threads=False
                )
                self._group, self._first, self._piece = group, int(self._starts[group]), next(self._walk)
            while place >= self._first + self._piece.num_rows:
                self._first += self._piece.num_rows
                self._piece = next(self._walk)
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._piece = None
            raise DataError(f"{self._path}, row {place} cannot be read ({error}): copy or write it again.") from None
        return self._piece


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_image(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _missing(schema: pa.Schema, path: Path, what: str) -> DataError:
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    return DataError(f"{path} has {what}; columns found: {found or '(none)'}. Rename or add the column.")


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    try:
        facts: Any = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in facts["info"]["features"][label]["names"])
    except (KeyError, ValueError, TypeError):
        return None
