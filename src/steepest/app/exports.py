"""Files that a command writes: whole or not at all, the kind found from the ending."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from steepest.basis.errors import UsageError, unknown


def checked(outputs: Sequence[str], endings: Sequence[str]) -> list[Path]:
    """Return the paths of the outputs, before any work is done.

    Raises:
        UsageError: an unknown ending, or a folder that does not exist.
    """
    paths = [Path(text).expanduser() for text in outputs]
    for path in paths:
        if ending(path, endings) is None:
            raise unknown(f"ending of the output {str(path)!r},", path.suffix, endings)
        require_parent(path)
    return paths


def ending(path: Path, endings: Iterable[str]) -> str | None:
    """Return the longest of the endings that the name has; a name that is nothing else has none.

    >>> ending(Path("net.Card.md"), (".md", ".card.md")), ending(Path(".md"), (".md",))
    ('.card.md', None)
    """
    name = path.name.lower()
    found = [each for each in endings if name.endswith(each) and name != each]
    return max(found, key=len, default=None)


def require_parent(path: Path) -> None:
    """Raise unless the folder that would hold `path` exists.

    Raises:
        UsageError: names the folder, or says that `path` is one.
    """
    if not path.parent.is_dir():
        raise UsageError(f"the output {str(path)!r} lies in a folder that does not exist: make {str(path.parent)!r}.")
    if path.suffix and path.is_dir():
        raise UsageError(f"the output {str(path)!r} is a folder: give the path of a file.")


def require_new(path: Path, *, force: bool) -> None:
    """Raise if there is something at `path` already, unless it may be replaced; a folder only if it holds images.

    Raises:
        UsageError: names --force, or what else is in the folder.
    """
    other = next((p for p in path.rglob("*") if p.is_file() and p.suffix != ".png"), None) if path.is_dir() else None
    if other is not None:
        raise UsageError(f"the output {str(path)!r} holds other files, such as {other.name!r}: give a new folder.")
    if (path.exists() or path.is_symlink()) and not force:
        raise UsageError(f"the output {str(path)!r} exists already: give another path, or --force to replace it.")


def write_json(path: Path, record: Any) -> None:
    """Write one JSON object."""
    write_text(path, json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    replace(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file or folder beside `path`, then put it in place in one step; nothing half-written stays.

    Raises:
        UsageError: the disk is full or cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        _put(beside, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(f"no space left for {str(path)!r}: nothing was written. Free some space.") from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG):
            raise UsageError(f"cannot write {str(path)!r} ({error.strerror}): give another path.") from None
        raise
    finally:
        _remove(beside)


def _put(beside: Path, path: Path) -> None:
    """A folder cannot be replaced by another in one step, so the old one moves aside first."""
    if not beside.is_dir() or not path.exists():
        beside.replace(path)
        return
    aside = beside.with_suffix(".old")
    path.rename(aside)
    try:
        beside.rename(path)
    except OSError:
        aside.rename(path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
