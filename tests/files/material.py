"""Small data of every kind, and what it means to be refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steepest.audit.data import Source, open_data
from steepest.basis.errors import DataError, SteepestError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (23, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(23) % 4


def everything(source: Source) -> torch.Tensor:
    return source.fetch(torch.arange(len(source)))


def npz(folder: Path, *, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def folder(root: Path, images: dict[str, Image.Image]) -> Path:
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    return root


def picture(seed: int, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def refused(*parts: str, kind: type[SteepestError] = DataError, **arguments: Any) -> None:
    """The data is refused, and the message holds every one of `parts`."""
    with pytest.raises(kind) as error:
        open_data(**arguments)
    for part in parts:
        assert part in str(error.value)
