"""torch Datasets and DataLoaders as sources: examples are fetched by index, as the data set gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from steepest.audit.data.adapt import adapt, require_ids
from steepest.audit.data.hashing import examples_sha256
from steepest.audit.data.labels import Named, in_order, label_indices
from steepest.audit.data.memory import TensorSource, as_example_rows, open_tensors, row_notes
from steepest.basis.errors import DataError

_PIECE = 256


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetSource:
    """A map-style data set of pairs (x, y); items are asked for when fetched."""

    data: Any
    shape: tuple[int, ...]
    labels: Tensor
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    name: str
    kind: str = "dataset"

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` in that order, [n, *shape], in the items' floating type."""
        places = require_ids(ids, len(self)).tolist()
        if not places:
            return torch.empty(0, *self.shape)
        rows = []
        for place in places:
            row = as_example_rows(_example(self.data, place)[0][None])
            if tuple(row.shape[1:]) != self.shape:
                raise DataError(
                    f"item {place} of {self.name} has the shape {tuple(row.shape[1:])}, the first {self.shape}: all "
                    "examples need one shape. Add a Resize or CenterCrop to its transform."
                )
            rows.append(row)
        return torch.cat(rows)

    def sha256(self) -> str:
        """Return the hash over types, shapes and bytes of examples and labels; asks for every item."""
        return examples_sha256(self._pieces())

    def _pieces(self) -> Iterator[Tensor]:
        for first in range(0, len(self), _PIECE):
            yield self.fetch(torch.arange(first, min(first + _PIECE, len(self))))
        yield self.labels


def open_dataset(data: Any, *, order: tuple[str, ...] | None = None) -> DatasetSource | TensorSource:
    """Open a data set of pairs (x, y); an iterable one is read into memory, and the notes say so.

    Labels come from `targets` or `tensors` where these agree with the items, otherwise from one pass over the items.

    Raises:
        DataError: it is empty, or an item is not a pair of numbers (a PIL image needs a ToTensor transform).
    """
    if isinstance(data, IterableDataset):
        return open_loader(DataLoader(data, batch_size=_PIECE), order=order)
    name = type(data).__name__
    count = len(data)
    if not count:
        raise DataError(f"{name} is empty (0 examples): give at least one.")
    first, label = _example(data, 0)
    notes = list(row_notes(first[None]))
    adapt(tuple(first.shape), np.dtype(np.float32), where=name)
    if not torch.equal(first, _example(data, 0)[0]):
        notes.append("The same item came out differently twice: remove random transforms to make a run repeatable.")
    labels, names, more = _labels(data, count, label, order)
    return DatasetSource(
        data=data,
        shape=tuple(as_example_rows(first[None]).shape[1:]),
        labels=labels,
        class_names=names,
        notes=(*notes, *more),
        name=name,
    )


def open_loader(loader: DataLoader[Any], *, order: tuple[str, ...] | None = None) -> DatasetSource | TensorSource:
    """Open the data set of a DataLoader; batch size and shuffling are not used, a sampler's indices are.

    Raises:
        DataError: as `open_dataset`.
    """
    if isinstance(loader.dataset, IterableDataset):
        return _materialised(loader, order)
    data: Any = loader.dataset
    sampler: Any = loader.sampler
    notes: list[str] = []
    if isinstance(sampler, RandomSampler):
        notes.append("The loader's shuffling was not used: examples count in the order of its data set.")
    elif hasattr(sampler, "indices"):
        data = Subset(data, sorted(int(index) for index in sampler.indices))
        notes.append(f"The loader's sampler selects {len(data)} examples; they count in the order of the data set.")
    elif not isinstance(sampler, SequentialSampler):
        notes.append(f"The loader's {type(sampler).__name__} was not used: every example of its data set counts.")
    source = open_dataset(data, order=order)
    assert isinstance(source, DatasetSource)
    return DatasetSource(
        data=source.data,
        shape=source.shape,
        labels=source.labels,
        class_names=source.class_names,
        notes=(*notes, *source.notes),
        name=f"DataLoader of {type(loader.dataset).__name__}",
    )


def _materialised(loader: DataLoader[Any], order: tuple[str, ...] | None) -> TensorSource:
    xs, ys = [], []
    for batch in loader:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise DataError(f"the loader gave {type(batch).__name__}; allowed are batches (x, y).")
        xs.append(torch.as_tensor(batch[0]))
        ys.append(torch.as_tensor(batch[1]))
    name = type(loader.dataset).__name__
    if not xs:
        raise DataError(f"{name} is empty (0 examples): give at least one.")
    source = open_tensors(torch.cat(xs), torch.cat(ys), order=order)
    note = f"{name} has no random access, so all {len(source)} examples were read into memory."
    return TensorSource(
        stored=source.stored,
        shape=source.shape,
        labels=source.labels,
        class_names=source.class_names,
        notes=(note, *source.notes),
        name=name,
        kind="dataset",
    )


def _example(data: Any, place: int) -> tuple[Tensor, Any]:
    item = data[place]
    name = type(data).__name__
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise DataError(
            f"item {place} of {name} is of type {type(item).__name__}; allowed is a pair (x, y). Wrap the data set so "
            "that it gives pairs."
        )
    x = item[0]
    if hasattr(x, "getbands"):
        raise DataError(
            f"item {place} of {name} is a PIL image; allowed are tensors. Add a ToTensor transform to the data set, "
            "e.g. transform=torchvision.transforms.ToTensor()."
        )
    try:
        return torch.as_tensor(x), item[1]
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"item {place} of {name} is no array of numbers ({error}): give tensors.") from None


def _labels(data: Any, count: int, first: Any, order: tuple[str, ...] | None) -> Named:
    where = f"{type(data).__name__} labels"
    known = _stored_labels(data)
    # A target transform would make stored labels differ from those of the items.
    if known is None or len(known) != count or not _same(known[0], first) or not _same(known[-1], data[count - 1][1]):
        known = np.asarray([_number(data[place][1]) for place in range(count)])
    own = getattr(data, "classes", None)
    own = [str(name) for name in own] if isinstance(own, list | tuple) else None
    return in_order(label_indices(known, count=count, where=where), own, order, where=where)


def _stored_labels(data: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(data, Subset):
        inner = _stored_labels(data.dataset)
        return None if inner is None else inner[np.asarray(data.indices, dtype=np.int64)]
    if getattr(data, "target_transform", None) is not None:
        return None
    tensors = getattr(data, "tensors", None)
    targets = tensors[1] if isinstance(tensors, tuple) and len(tensors) > 1 else getattr(data, "targets", None)
    if targets is None:
        return None
    array = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    return array if array.ndim == 1 and array.dtype.kind in "iubf" and array.size else None


def _number(label: Any) -> Any:
    return label.item() if isinstance(label, Tensor) and label.numel() == 1 else label


def _same(a: Any, b: Any) -> bool:
    return bool(_number(a) == _number(b))


def is_dataset(source: object) -> bool:
    """Return whether `source` can be read as a data set: torch's own, or anything indexed with a length."""
    return isinstance(source, Dataset) or (hasattr(source, "__getitem__") and hasattr(source, "__len__"))
