"""What every loader asks of a file: that it is there, its hash, and the shape of its examples."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from steepest.basis.errors import UsageError


def require_file(path: Path, what: str = "model") -> Path:
    """Return `path` if it is a file.

    Raises:
        UsageError: names the path, and files of nearly that name in its folder.
    """
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"the {what} {str(path)!r} is a folder; give a file inside it.")
    names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    hint = f" Near it: {', '.join(str(path.parent / name) for name in near)}." if near else ""
    missing = "" if path.parent.is_dir() else f" Its folder {str(path.parent)!r} does not exist either."
    raise UsageError(f"the {what} file {str(path)!r} does not exist.{missing}{hint} Check the path.")


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 (hexadecimal) of the files' bytes one after another, read in pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def completed(features: tuple[int | None, ...], given: tuple[int, ...] | None, path: Path) -> tuple[int, ...] | None:
    """Return the shape of one example: the file's, its free axes (None) filled in from `given`; None if still free.

    Raises:
        UsageError: `given` contradicts the file.
    """
    if given is not None:
        if len(given) != len(features) or any(f not in (None, g) for f, g in zip(features, given, strict=True)):
            wanted = "×".join(str(f or "any") for f in features)
            raise UsageError(f"input_shape={given} contradicts {str(path)!r}, whose examples have shape {wanted}.")
        return given
    known = tuple(f for f in features if f is not None)
    return known if len(known) == len(features) else None
