"""Hashes of files and tensors, read piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_sha256(root: Path, files: Iterable[Path]) -> str:
    """Return one SHA-256 over the names (below `root`) and the contents of `files`, in their order."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n".encode())
    return whole.hexdigest()


def tensor_bytes(x: Tensor) -> bytes:
    """Return the bytes of the elements in row-major order; every dtype works, bfloat16 too."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def examples_sha256(pieces: Iterable[Tensor]) -> str:
    """Return one SHA-256 over tensors, each with its type and the shape of one example."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(f"{piece.dtype}{tuple(piece.shape[1:])}".encode())
        whole.update(tensor_bytes(piece))
    return whole.hexdigest()


def pixel_hash(x: Tensor) -> list[str]:
    """Return a short hash (16 hex characters of BLAKE2b) of each decoded example of `x` [n, ...].

    Equal examples of one shape and type have equal hashes, wherever in the data they lie.

    >>> a, b = pixel_hash(torch.zeros(2, 3))
    >>> a == b, len(a)
    (True, 16)
    """
    return [hashlib.blake2b(tensor_bytes(row), digest_size=8).hexdigest() for row in x]
