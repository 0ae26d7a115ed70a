"""The gallery: clean, adversarial and difference, losslessly and to scale."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from steepest.report.contract import Card, Picture, Table, Triple
from steepest.report.wording import plain, short, size

MOST = 48
DRAWN = 120
FEATURES = 8
GREY = 128


def cards(triples: Sequence[Triple], room: int) -> list[Card]:
    """Return the first examples, at most 48, whose images together take at most `room` characters."""
    chosen: list[Card] = []
    for triple in triples[:MOST]:
        card = _card(triple)
        room -= sum(len(picture.uri) for picture in card.pictures)
        if room < 0:
            break
        chosen.append(card)
    return chosen


def is_image(shape: tuple[int, ...]) -> bool:
    """Return whether an example of this shape can be drawn: 1 or 3 channels, rows and columns (at least 4 each).

    >>> is_image((3, 32, 32)), is_image((1, 784, 1)), is_image((20,))
    (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4


def shade(x: NDArray[Any], lower: float, upper: float) -> NDArray[np.uint8]:
    """Return `x` [C, H, W] as bytes, `lower` black and `upper` white, rounded to nearest."""
    scaled = (x.astype(np.float64) - lower) / (upper - lower)
    shades: NDArray[np.uint8] = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
    return shades


def difference(triple: Triple) -> tuple[NDArray[np.uint8], float]:
    """Return adversarial − clean as bytes, and the factor by which it is enlarged.

    byte = 128 + round(127 · δ / max|δ|): the largest change fills the range on its side, no change is exactly 128.
    The factor 127 · (upper − lower) / (255 · max|δ|) relates these shades to those of the two inputs; it is 0 where
    nothing changed.
    """
    delta = triple.adversarial.astype(np.float64) - triple.clean.astype(np.float64)
    largest = float(np.abs(delta).max(initial=0.0))
    if largest == 0.0:
        return np.full(delta.shape, GREY, np.uint8), 0.0
    shades = (GREY + np.rint(127 * delta / largest)).astype(np.uint8)
    return shades, 127 * (triple.upper - triple.lower) / (255 * largest)


def png(shades: NDArray[np.uint8]) -> str:
    """Return bytes [C, H, W] (1 or 3 channels) as a data URI that holds a lossless PNG."""
    image = Image.fromarray(shades[0] if shades.shape[0] == 1 else np.ascontiguousarray(shades.transpose(1, 2, 0)))
    held = io.BytesIO()
    image.save(held, format="PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def _card(triple: Triple) -> Card:
    label, before, after, stage = (
        short(plain(text), 40)
        for text in (
            triple.label_name,
            triple.clean_prediction_name,
            triple.adversarial_prediction_name,
            triple.stage,
        )
    )
    radius = f" at radius {size(triple.radius)}" if math.isfinite(triple.radius) else ""
    title, found = f"Example {triple.example_id}", f"{stage}{radius}"
    if not is_image(triple.clean.shape):
        table = _features(triple)
        return Card(title=title, label=label, before=before, after=after, found=found, scale="", features=table)
    shades, factor = difference(triple)
    scale = f"difference × {factor:.1f}, grey = 0" if factor else "no difference"
    pictures = (
        _picture(shade(triple.clean, triple.lower, triple.upper), "clean", f"{title}, clean, predicted {before}"),
        _picture(
            shade(triple.adversarial, triple.lower, triple.upper),
            "adversarial",
            f"{title}, adversarial, predicted {after}",
        ),
        _picture(shades, "difference", f"{title}, {scale}"),
    )
    return Card(title=title, label=label, before=before, after=after, found=found, scale=scale, pictures=pictures)


def _picture(shades: NDArray[np.uint8], caption: str, alt: str) -> Picture:
    """Small images are enlarged by a whole factor, so that every pixel is a square of the same size."""
    height, width = shades.shape[1:]
    factor = max(1, DRAWN // max(height, width))
    shrunk = max(height, width) > DRAWN
    scale = DRAWN / max(height, width) if shrunk else factor
    return Picture(
        uri=png(shades),
        alt=alt,
        caption=caption,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        shrunk=shrunk,
    )


def _features(triple: Triple) -> Table:
    clean, adversarial = triple.clean.astype(np.float64), triple.adversarial.astype(np.float64)
    delta = (adversarial - clean).ravel()
    order = np.argsort(-np.abs(delta), kind="stable")[:FEATURES]
    rows = []
    for index in order:
        place = np.unravel_index(int(index), clean.shape) if clean.ndim else ()
        name = ", ".join(str(int(axis)) for axis in place) or "0"
        before, after = clean.ravel()[index], adversarial.ravel()[index]
        rows.append((name, f"{before:.4g}", f"{after:.4g}", f"{delta[index]:+.4g}".replace("-", "−")))
    return Table(
        caption=f"The {len(rows)} most changed of {delta.size:,} features",
        head=("Feature", "Clean", "Adversarial", "Change"),
        rows=tuple(rows),
    )
