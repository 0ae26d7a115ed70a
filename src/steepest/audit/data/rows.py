"""Random access to the rows of an array that lies in a file, without holding the array."""

from __future__ import annotations

import errno
import io
import math
import os
import shutil
import tempfile
import weakref
from threading import Lock
from typing import IO, Any, final

import numpy as np
from numpy.typing import NDArray

from steepest.basis.errors import DataError

_PIECE = 1 << 20


@final
class RowFile:
    """`count` rows of equal shape, one after another in a file from the byte `start` on.

    Reads carry their own position, so threads and forked processes may share the file. It is closed with the object.
    """

    def __init__(
        self,
        handle: IO[bytes],
        *,
        start: int,
        count: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str,
    ) -> None:
        self.count, self.shape, self.dtype = count, shape, dtype
        self._handle, self._start, self._name = handle, start, name
        self._lock = Lock()
        weakref.finalize(self, handle.close)

    def read(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows `ids` [n] in that order, [n, *shape]; neighbours are read in one go.

        Raises:
            DataError: the file ends too early.
        """
        rows = np.empty((len(ids), *self.shape), self.dtype)
        width = math.prod(self.shape) * self.dtype.itemsize
        raw = memoryview(rows.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        ends = np.flatnonzero(np.diff(ids) != 1) + 1
        for first, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(ids)], strict=True):
            if stop > first:
                self._fill(raw[first * width : stop * width], self._start + int(ids[first]) * width)
        return rows

    def strip(self, offset: int, items: int) -> NDArray[Any]:
        """Return `items` numbers that lie side by side from the number `offset` of the array on."""
        strip = np.empty(items, self.dtype)
        self._fill(memoryview(strip.view(np.uint8)), self._start + offset * self.dtype.itemsize)  # type: ignore[arg-type]
        return strip

    def _fill(self, view: memoryview, place: int) -> None:
        while view.nbytes:
            got = self._read_at(view, place)
            if not got:
                raise DataError(f"{self._name} is shorter than its header says: copy or download it again.")
            view, place = view[got:], place + got

    def _read_at(self, view: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._handle.fileno(), [view], place)
        with self._lock:
            self._handle.seek(place)
            piece = self._handle.read(view.nbytes)
        view[: len(piece)] = piece
        return len(piece)


def spool(stream: IO[bytes] | io.BufferedIOBase, *, size: int, name: str) -> IO[bytes]:
    """Return an anonymous temporary file with the first `size` bytes of `stream`; it vanishes when closed.

    Raises:
        DataError: no space is left for it, or the stream ends early.
    """
    with _EnoughSpace(size, name):
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the source
        shutil.copyfileobj(stream, copy, _PIECE)
        copy.flush()
    if copy.tell() < size:
        raise DataError(f"{name} is shorter than its header says: copy or download it again.")
    return copy


def row_major(columns: RowFile) -> RowFile:
    """Return the rows of an array that was saved in Fortran order, rewritten row by row to a temporary file.

    Raises:
        DataError: no space is left for it.
    """
    count, shape, dtype = columns.count, columns.shape, columns.dtype
    width = math.prod(shape)
    step = max(1, 4 * _PIECE // (width * dtype.itemsize))
    with _EnoughSpace(count * width * dtype.itemsize, columns._name):
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the source
        for first in range(0, count, step):
            rows = min(step, count - first)
            block = np.empty((rows, width), dtype)
            for column in range(width):
                block[:, column] = columns.strip(column * count + first, rows)
            # Fortran order counts the first axis fastest, also inside a row.
            order = (0, *range(len(shape), 0, -1))
            copy.write(block.reshape(rows, *reversed(shape)).transpose(order).tobytes())
        copy.flush()
    return RowFile(copy, start=0, count=count, shape=shape, dtype=dtype, name=columns._name)


@final
class _EnoughSpace:
    """Turns a full disk into an error with a remedy, if it can before a byte is written."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name

    def __enter__(self) -> None:
        if shutil.disk_usage(tempfile.gettempdir()).free < self._size:
            raise DataError(self._message())

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DataError(self._message()) from None

    def _message(self) -> str:
        return (
            f"no space is left to unpack {self._name}: {self._size / 2**20:.1f} MiB are needed in "
            f"{tempfile.gettempdir()}. Set TMPDIR to a roomier folder, or save the file with numpy.savez (not "
            "compressed, row-major), which is read in place."
        )
