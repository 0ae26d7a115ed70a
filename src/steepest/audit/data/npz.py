"""NumPy archives: rows are read from the file itself, or from a temporary copy of a compressed member."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.audit.data.adapt import Adaptation, adapt, require_ids
from steepest.audit.data.hashing import file_sha256
from steepest.audit.data.labels import Named, from_names, in_order, label_indices
from steepest.audit.data.rows import RowFile, row_major, spool
from steepest.basis.errors import DataError

_EXAMPLES = ("images", "x")
_LABELS = ("labels", "y")
_NAMES = ("classes", "class_names")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NpzSource:
    """The examples of a `.npz` file: `images` or `x`, with `labels` or `y`, and class names if it holds them."""

    path: Path
    rows: RowFile
    adaptation: Adaptation
    labels: Tensor
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    kind: str = "npz"

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.adaptation.shape

    def __len__(self) -> int:
        """Return N."""
        return self.rows.count

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` in that order, float32 [n, *shape]."""
        return self.adaptation(self.rows.read(require_ids(ids, len(self))))

    def sha256(self) -> str:
        """Return the hash of the file."""
        return file_sha256(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    length: int


def open_npz(path: Path, *, order: tuple[str, ...] | None = None) -> NpzSource:
    """Open a `.npz` file without loading its examples.

    A compressed member is unpacked once to an anonymous temporary file; an uncompressed one is read in place.

    Raises:
        DataError: a broken archive, missing keys, pickled objects, no example, or labels that do not fit.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        keys = {Path(entry).stem: entry for entry in archive.namelist() if entry.endswith(".npy")}
        key = _key(path, keys, _EXAMPLES)
        header = _header(archive, keys[key], path)
        if not header.shape or not header.shape[0]:
            raise DataError(f"{path}: {key!r} has the shape {header.shape}, so no example; give at least one.")
        where = f"{path} ({key})"
        adaptation = adapt(header.shape[1:], header.dtype, where=where)
        labels, names, notes = _labels(archive, keys, path, count=header.shape[0], order=order)
        rows = _rows(archive, keys[key], path, header)
    return NpzSource(
        path=path,
        rows=rows,
        adaptation=adaptation,
        labels=labels,
        class_names=names,
        notes=(*adaptation.notes, *notes),
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise DataError(
            f"{path} is not a whole .npz file ({error}): it may be truncated. Copy or download it again, or write it "
            "again with numpy.savez."
        ) from None
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be unpacked ({error}): write it again with numpy.savez.") from None


def _key(path: Path, keys: dict[str, str], wanted: tuple[str, ...]) -> str:
    for key in wanted:
        if key in keys:
            return key
    raise DataError(
        f"{path} holds the keys {', '.join(sorted(keys)) or '(none)'}; needed are {' or '.join(_EXAMPLES)} and "
        f"{' or '.join(_LABELS)}, and {' or '.join(wanted)} is missing. Write it with "
        "numpy.savez(path, images=..., labels=...)."
    )


def _header(archive: zipfile.ZipFile, member: str, path: Path) -> _Header:
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except ValueError as error:
            raise DataError(f"{path}: {member} is not a NumPy array ({error}): write it again.") from None
        header = _Header(shape=shape, fortran=fortran, dtype=dtype, length=stream.tell())
    if dtype.hasobject:
        raise DataError(
            f"{path}: {member} holds pickled Python objects, which can run code when read, so they are refused. "
            "Save plain arrays of one shape and a numeric type."
        )
    size = header.length + math.prod(shape) * dtype.itemsize
    if archive.getinfo(member).file_size != size:
        raise DataError(f"{path}: {member} is not as long as its header says: write or download it again.")
    return header


def _whole(archive: zipfile.ZipFile, member: str, path: Path) -> NDArray[Any]:
    _header(archive, member, path)
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _labels(
    archive: zipfile.ZipFile, keys: dict[str, str], path: Path, *, count: int, order: tuple[str, ...] | None
) -> Named:
    raw = _whole(archive, keys[_key(path, keys, _LABELS)], path)
    if raw.dtype.kind == "U" and raw.shape == (count,):
        words, index = np.unique(raw, return_inverse=True)
        return from_names(words.tolist(), torch.from_numpy(index.reshape(-1)), order, where=str(path))
    indices = label_indices(raw, count=count, where=str(path))
    for key in _NAMES:
        if key in keys:
            names = _whole(archive, keys[key], path)
            own = names.tolist() if names.dtype.kind == "U" and names.ndim == 1 and names.size else None
            return in_order(indices, own, order, where=str(path))
    return in_order(indices, None, order, where=str(path))


def _rows(archive: zipfile.ZipFile, member: str, path: Path, header: _Header) -> RowFile:
    entry = archive.getinfo(member)
    handle: IO[bytes]
    if entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1:
        handle, start = path.open("rb"), 0
        handle.seek(entry.header_offset)
        # A local header is 30 bytes, then a name and an extra field whose lengths stand at its end.
        name_length, extra_length = struct.unpack("<26xHH", handle.read(30))
        start = entry.header_offset + 30 + name_length + extra_length
    else:
        with archive.open(member) as stream:
            handle, start = spool(stream, size=entry.file_size, name=str(path)), 0
    rows = RowFile(
        handle,
        start=start + header.length,
        count=header.shape[0],
        shape=header.shape[1:],
        dtype=header.dtype,
        name=str(path),
    )
    return row_major(rows) if header.fortran and len(header.shape) > 1 else rows
