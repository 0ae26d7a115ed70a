"""Image files and bytes, decoded by Pillow: upright, 8 bits, RGB or grayscale."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from steepest.basis.errors import DataError, UsageError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")

# Named, so that bytes from strangers never reach decoders that call other programs (EPS).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_GRAY = ("1", "L", "LA")
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What an image's header says, before its pixels are decoded.

    Attributes:
        size: (height, width), upright.
        gray: no colour.
        alpha: transparency, which decoding drops.
        turned: the EXIF orientation asks for a rotation or reflection.
    """

    size: tuple[int, int]
    gray: bool
    alpha: bool
    turned: bool


def probe(raw: Path | bytes, *, name: str) -> Probe:
    """Return what the header of an image says; `name` is for messages.

    Raises:
        DataError: not a readable 8-bit image, or one so large that it may be a decompression bomb.
    """
    with _opened(raw, name) as image:
        # Pillow decodes a whole PNG to look for a late EXIF block; a rotated one is found when it is fetched.
        known = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(_ORIENTATION, 1) if known else 1
        size = image.size if orientation >= 5 else image.size[::-1]
        alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return Probe(size=size, gray=image.mode in _GRAY, alpha=alpha, turned=orientation != 1)


def decode(raw: Path | bytes, *, name: str, shape: tuple[int, ...], resize: bool) -> Tensor:
    """Return an image as float32 `shape` = [C, H, W] in [0, 1], upright; C = 1 is grayscale, C = 3 RGB.

    With `resize`, it is brought to H×W by Pillow's (antialiased) bilinear filter.

    Raises:
        DataError: a broken image, another size, or colours where grayscale is expected.
    """
    with _opened(raw, name) as image:
        if shape[0] == 1 and image.mode not in _GRAY:
            raise DataError(
                f"{name} is a colour image ({image.mode}) among grayscale ones: store all images in one mode."
            )
        upright = ImageOps.exif_transpose(image).convert("L" if shape[0] == 1 else "RGB")
        if resize:
            upright = upright.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
        if upright.size != (shape[2], shape[1]):
            raise size_error(name, upright.size[::-1], "the first image", (shape[1], shape[2]))
        pixels = torch.from_numpy(np.array(upright, dtype=np.uint8))
    return pixels.reshape(shape[1], shape[2], shape[0]).permute(2, 0, 1).contiguous().float() / 255


def size_error(name: str, size: tuple[int, ...], other: str, expected: tuple[int, ...]) -> DataError:
    """Return the error for images of two sizes (height, width)."""
    return DataError(
        f"{name} is {size[0]}x{size[1]} (height x width) but {other} is {expected[0]}x{expected[1]}: all examples "
        f"need one size. Bring them to one with --resize HxW, e.g. --resize {expected[0]}x{expected[1]}."
    )


def require_size(resize: tuple[int, int] | None) -> None:
    """Raise unless `resize` is None or two positive whole numbers.

    Raises:
        UsageError: names the value and the form.
    """
    if resize is None:
        return
    if len(resize) != 2 or any(not isinstance(side, int) or side < 1 for side in resize):
        raise UsageError(f"resize={resize!r} is not a size: give (height, width), both at least 1, e.g. (32, 32).")


@contextmanager
def _opened(raw: Path | bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw, formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width * image.height} pixels, allowed are {limit}")
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{name} has more than 8 bits a channel (mode {image.mode}), which has no fixed scale; allowed are "
                    "8-bit images. Convert it, or give a .npz of floats in your own units."
                )
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name} may be a decompression bomb ({error}): remove it, or make it smaller before the audit."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if isinstance(raw, Path) and not raw.is_file():
            raise DataError(
                f"{name} does not exist or is no file: it was there before, or give another path."
            ) from None
        raise DataError(f"{name} is not a whole image that can be read ({error}): repair or remove it.") from None
