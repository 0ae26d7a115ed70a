"""From stored arrays to what a model eats: floats in data units, channels first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.basis.errors import DataError, UsageError

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """How stored rows become examples.

    Attributes:
        stored: shape of one stored row.
        shape: of one example.
        channels_last: the stored row is [H, W, C].
        scaled: the stored numbers are uint8 and are divided by 255.
        notes: one sentence for each change.
    """

    stored: tuple[int, ...]
    shape: tuple[int, ...]
    channels_last: bool
    scaled: bool
    notes: tuple[str, ...]

    def __call__(self, rows: NDArray[Any]) -> Tensor:
        """Return stored rows [n, *stored] as float32 [n, *shape]; uint8 becomes exactly `float() / 255`."""
        if self.scaled:
            return self.arranged(torch.from_numpy(np.ascontiguousarray(rows))).float() / 255
        return self.arranged(torch.from_numpy(rows.astype(np.float32)))

    def arranged(self, rows: Tensor) -> Tensor:
        """Return the rows channels first, [n, *shape], contiguous, values untouched."""
        moved = rows.permute(0, 3, 1, 2) if self.channels_last else rows
        return moved.reshape(-1, *self.shape).contiguous()


def adapt(stored: tuple[int, ...], dtype: np.dtype[Any], *, where: str) -> Adaptation:
    """Return how rows of shape `stored` and type `dtype` become examples.

    Rows [H, W] gain a channel axis; [H, W, C] with C in 1, 3, 4 becomes [C, H, W], unless the first axis could be
    the channels already; vectors, and columns such as [784, 1], stay as they are.

    Raises:
        DataError: the numbers are not real, or an example has no axis or no element.
    """
    if dtype.kind not in "iubf":
        raise DataError(
            f"{where}: examples of type {dtype} cannot be read; allowed are uint8 images and real numbers. Save plain "
            "arrays of one shape (numeric, not objects, text or records)."
        )
    if not stored or 0 in stored:
        raise DataError(
            f"{where}: one example has the shape {stored}; allowed is at least one axis and one element. "
            "Save x as [N, features] or [N, C, H, W]."
        )
    notes = []
    scaled = dtype == np.uint8
    if scaled:
        notes.append("uint8 values were divided by 255.")
    elif dtype != np.float32:
        notes.append(f"{dtype.name} values became float32, in their own units.")
    if len(stored) == 2 and 1 not in stored:
        notes.append("A channel axis was added: [N, H, W] became [N, 1, H, W].")
        return _made(stored, (1, *stored), False, scaled, notes)
    if len(stored) == 3 and stored[2] in _CHANNELS and stored[0] not in _CHANNELS:
        notes.append("Channels were moved to the front: [N, H, W, C] became [N, C, H, W].")
        return _made(stored, (stored[2], *stored[:2]), True, scaled, notes)
    return _made(stored, stored, False, scaled, notes)


def _made(stored: tuple[int, ...], shape: tuple[int, ...], last: bool, scaled: bool, notes: list[str]) -> Adaptation:
    return Adaptation(stored=stored, shape=shape, channels_last=last, scaled=scaled, notes=tuple(notes))


def require_ids(ids: Tensor, count: int) -> NDArray[np.int64]:
    """Return `ids` as an array of positions.

    Raises:
        UsageError: one lies outside 0..count-1 (negative positions are not counted from the end).
    """
    places = ids.detach().cpu().long().reshape(-1).numpy()
    outside = places[(places < 0) | (places >= count)]
    if outside.size:
        raise UsageError(
            f"example {int(outside[0])} does not exist: the data has {count} examples, ids 0 to {count - 1}. "
            "Give ids in that range."
        )
    return places
