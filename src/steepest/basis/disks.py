"""Writing to disks: files that are there when a process dies, and refusals in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from steepest.basis.errors import IncompleteError, UsageError


@contextmanager
def writing(place: object, kept: str = "what is finished") -> Iterator[None]:
    """Name the place where a disk refuses what is written inside the `with`, and say what is kept.

    Raises:
        IncompleteError: there is no space left; the same command again goes on.
        UsageError: the disk cannot be written for another reason.

    >>> with writing("runs/a"):
    ...     raise OSError(errno.EACCES, "Permission denied")
    Traceback (most recent call last):
    steepest.basis.errors.UsageError: cannot write to runs/a (Permission denied): give another --out.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise IncompleteError(
                f"no space left on the disk of {place}: {kept} is kept. Free some space and run the same command again."
            ) from None
        raise UsageError(f"cannot write to {place} ({error.strerror or error}): give another --out.") from None


def flushed(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file and wait until the disk has it; `content` may fill a stream."""
    with path.open("wb") as stream:
        stream.write(content) if isinstance(content, bytes) else content(stream)
        stream.flush()
        os.fsync(stream.fileno())
