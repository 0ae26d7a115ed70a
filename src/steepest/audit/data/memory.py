"""Examples that the caller holds already: a pair (x, y) of tensors, arrays or lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.audit.data.adapt import Adaptation, adapt, require_ids
from steepest.audit.data.hashing import examples_sha256
from steepest.audit.data.labels import in_order, label_indices
from steepest.basis.errors import DataError, UsageError

_PIECE = 256


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorSource:
    """A view of the caller's tensor or array; nothing is copied until it is fetched.

    Floating types and devices are kept; uint8 is treated as in files (divided by 255, channels first).
    """

    stored: Tensor | NDArray[Any]
    shape: tuple[int, ...]
    labels: Tensor
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    name: str = "tensors"
    kind: str = "tensors"

    def __len__(self) -> int:
        """Return N."""
        return len(self.stored)

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` in that order, [n, *shape], in the stored floating type."""
        places = require_ids(ids, len(self))
        if isinstance(self.stored, Tensor):
            return as_example_rows(self.stored[torch.from_numpy(places).to(self.stored.device)])
        return as_example_rows(torch.from_numpy(np.ascontiguousarray(self.stored[places])))

    def sha256(self) -> str:
        """Return the hash over types, shapes and bytes of examples and labels."""
        return examples_sha256(self._pieces())

    def _pieces(self) -> Iterator[Tensor]:
        for first in range(0, len(self), _PIECE):
            yield self.fetch(torch.arange(first, min(first + _PIECE, len(self))))
        yield self.labels


def as_example_rows(rows: Tensor) -> Tensor:
    """Return rows [n, ...] as examples: floats as they are, uint8 as in files, other numbers as float32."""
    if rows.is_floating_point():
        return rows.detach()
    if rows.dtype == torch.uint8:
        return uint8_adaptation(rows).arranged(rows).float() / 255
    return rows.float()


def uint8_adaptation(rows: Tensor) -> Adaptation:
    """Return how uint8 rows [n, ...] are read, the same as from a file."""
    return adapt(tuple(rows.shape[1:]), np.dtype(np.uint8), where="x")


def row_notes(rows: Tensor) -> tuple[str, ...]:
    """Return one sentence for each change that `as_example_rows` makes."""
    if rows.dtype == torch.uint8:
        return uint8_adaptation(rows).notes
    if not rows.is_floating_point():
        return (f"{str(rows.dtype).removeprefix('torch.')} values became float32, in their own units.",)
    return ()


def open_tensors(x: object, y: object, *, order: tuple[str, ...] | None = None) -> TensorSource:
    """Open a pair of tensors, arrays or lists: x [N, ...] floats or uint8, y [N] class indices.

    Raises:
        DataError: lengths differ, there is no example, or types are not real numbers.
    """
    stored = _array(x, "x")
    if not stored.ndim or not len(stored):
        raise DataError(f"x has the shape {tuple(stored.shape)}, so no example; allowed is [N, ...] with N at least 1.")
    first = stored[:1] if isinstance(stored, Tensor) else torch.from_numpy(np.ascontiguousarray(stored[:1]))
    adapt(tuple(first.shape[1:]), np.dtype(np.float32), where="x")
    raw = _array(y, "y")
    raw = raw.detach().cpu().numpy() if isinstance(raw, Tensor) else raw
    labels, names, notes = in_order(label_indices(raw, count=len(stored), where="y"), None, order, where="y")
    return TensorSource(
        stored=stored,
        shape=tuple(as_example_rows(first).shape[1:]),
        labels=labels,
        class_names=names,
        notes=(*row_notes(first), *notes),
    )


def _array(values: object, what: str) -> Tensor | NDArray[Any]:
    if isinstance(values, Tensor):
        if values.is_complex():
            raise DataError(
                f"{what} is complex ({values.dtype}); allowed are real numbers: give torch.view_as_real(x)."
            )
        return values.detach()
    if isinstance(values, list | tuple):
        values = _stacked(list(values), what)
        if isinstance(values, Tensor):
            return values
    if not isinstance(values, np.ndarray):
        raise UsageError(
            f"{what} is of type {type(values).__name__}; allowed are a torch tensor, a NumPy array or a list of "
            "numbers."
        )
    if values.dtype.kind not in "iubf" or values.dtype.itemsize > 8:
        raise DataError(f"{what} has the type {values.dtype}; allowed are real numbers of at most 64 bits.")
    # torch lacks wide unsigned integers and foreign byte orders.
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        return values.astype(np.int64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _stacked(values: list[Any], what: str) -> Tensor | NDArray[Any]:
    try:
        if values and all(isinstance(value, Tensor) for value in values):
            return torch.stack([value.detach() for value in values])
        if values and all(isinstance(value, np.ndarray | np.generic) for value in values):
            return np.stack(values)
        return torch.as_tensor(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} is a list that is no array of numbers ({error}): give equal shapes.") from None
