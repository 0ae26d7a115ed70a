"""Labels: from whatever a file holds to indices of the model's outputs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.basis.errors import DataError, UsageError

Named = tuple[Tensor, tuple[str, ...] | None, tuple[str, ...]]
"""Label indices, class names in their order if known, notes."""


def label_indices(raw: NDArray[Any], *, count: int, where: str) -> Tensor:
    """Return numeric labels as int64 [count]; [count, 1] and whole-numbered floats are accepted.

    Raises:
        DataError: another length or rank, a fraction, NaN, a negative number, or not numbers at all.
    """
    labels = raw.reshape(-1) if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if labels.ndim != 1:
        raise DataError(
            f"{where}: labels of shape {raw.shape} are not one class index per example; allowed is [{count}]. "
            "One-hot labels become indices by argmax(1)."
        )
    if len(labels) != count:
        raise DataError(
            f"{where}: {len(labels)} labels for {count} examples; give exactly one label per example, in their order."
        )
    if labels.dtype.kind not in "iubf":
        raise DataError(
            f"{where}: labels of type {labels.dtype} are not class indices; allowed are integers from 0 (the index of "
            "the model's output)."
        )
    return _whole(labels, where)


def _whole(labels: NDArray[Any], where: str) -> Tensor:
    if labels.dtype.kind == "f":
        broken = ~np.isfinite(labels) | (labels != np.floor(labels))
        if broken.any():
            first = int(broken.argmax())
            raise DataError(
                f"{where}: label {labels[first]} at position {first} is not a whole number ({int(broken.sum())} such "
                "labels); allowed are integers from 0. Regression targets are not class labels."
            )
    whole = labels.astype(np.int64)
    if (whole < 0).any():
        first = int((whole < 0).argmax())
        raise DataError(
            f"{where}: label {whole[first]} at position {first} is negative ({int((whole < 0).sum())} such labels); "
            "allowed are integers from 0. Remove unlabelled examples, and count classes from 0."
        )
    return torch.from_numpy(whole)


def class_order(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class names that the caller gave, checked.

    Raises:
        UsageError: a single string, no names, or a name twice.
    """
    if labels is None:
        return None
    if isinstance(labels, str) or not labels or not all(isinstance(name, str) for name in labels):
        raise UsageError(
            f"labels={labels!r} is not a list of class names: give them in the order of the model's outputs, "
            "e.g. ['cat', 'dog']."
        )
    twice = sorted({name for name in labels if list(labels).count(name) > 1})
    if twice:
        raise UsageError(f"labels names {', '.join(map(repr, twice))} more than once: each output has one name.")
    return tuple(labels)


def index_names(names: Sequence[str], order: Sequence[str], *, where: str) -> list[int]:
    """Return the index of each class name of the data in `order`, the names of the model's outputs.

    Raises:
        DataError: a name is missing there; near matches are offered.
    """
    place = {name: index for index, name in enumerate(order)}
    missing = [name for name in names if name not in place]
    if missing:
        near = difflib.get_close_matches(missing[0], order, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise DataError(
            f"{where}: class {shown} is not among the {len(order)} labels given{hint} Allowed: "
            f"{', '.join(order[:20])}{', ...' if len(order) > 20 else ''}. Give --labels with every class of the "
            "data, in the order of the model's outputs."
        )
    return [place[name] for name in names]


def in_order(labels: Tensor, own: Sequence[str] | None, order: tuple[str, ...] | None, *, where: str) -> Named:
    """Return indices that count in the caller's `order`, given the names that the data itself brings (`own`).

    Names of the data that all occur in `order` are matched by name; if none occurs, or the data brings no names,
    the numbers are taken as indices of `order`.

    Raises:
        DataError: only some names occur, or a label lies beyond the data's own names.
    """
    if order is None or own is None or tuple(own) == order:
        return labels, order or (tuple(own) if own else None), ()
    if not set(own) & set(order):
        note = "The class names in the data and the labels given have nothing in common; labels are taken as indices."
        return labels, order, (note,)
    if int(labels.max()) >= len(own):
        raise DataError(
            f"{where}: label {int(labels.max())} lies beyond the {len(own)} class names in the data, so it cannot be "
            "matched by name; correct the names in the data, or leave --labels out."
        )
    table = torch.tensor(index_names(own, order, where=where))
    return table[labels], order, ("Labels were matched by class name to the order given.",)


def from_names(names: Sequence[str], index: Tensor, order: tuple[str, ...] | None, *, where: str) -> Named:
    """Return the labels of data whose classes are words: example i has the class `names[index[i]]`.

    Without `order`, classes count in sorted order of their names, as in torchvision's ImageFolder.

    Raises:
        DataError: a name is missing in `order`.
    """
    if order is not None:
        return torch.tensor(index_names(names, order, where=where))[index], order, ()
    ordered = sorted(names)
    notes = [f"Class names count in sorted order: {', '.join(ordered[:10])}{', ...' if len(ordered) > 10 else ''}."]
    if all(name.isdecimal() for name in names) and ordered != sorted(names, key=int):
        notes.append(
            "The names are numbers, sorted as text (1, 10, 2); give the labels in order if the model counts otherwise."
        )
    place = torch.tensor([ordered.index(name) for name in names])
    return place[index], tuple(ordered), tuple(notes)
