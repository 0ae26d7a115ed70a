"""The examples of a training: where they come from, in what order, and how they are varied."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from steepest.basis.errors import DataError, UsageError
from steepest.basis.streams import Stream

AUGMENTS = ("none", "crop-flip")
MOST_HELD = 1000
"""So many held-out examples tell a percentage to about three points, and cost ten passes each after every epoch."""

_ORDER, _HELD, _VARIED = 0, 1, 2
_PADDED = 8


@runtime_checkable
class Examples(Protocol):
    """Labelled examples with random access, as the sources of `st.audit` are."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""

    def __len__(self) -> int:
        """Return N."""

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` [n] in that order, [n, *shape], in data units."""

    def sha256(self) -> str:
        """Return the hash of what the examples come from."""


@final
class Tensors:
    """Examples in memory.

    Raises:
        DataError: x is no float tensor [N, ...], or y no int64 [N].
    """

    def __init__(self, x: Any, y: Any) -> None:
        x, labels = torch.as_tensor(x), torch.as_tensor(y)
        if not x.is_floating_point() or x.ndim < 2:
            form = f"{x.dtype} {tuple(x.shape)}"
            raise DataError(f"x is {form}; give a float tensor [N, *features] in the box (images: x.float() / 255).")
        if labels.is_floating_point() or labels.shape != x.shape[:1]:
            raise DataError(
                f"y is {labels.dtype} {tuple(labels.shape)} for {len(x)} examples; give one whole number each, [N]."
            )
        self.x, self._labels = x.detach(), labels.long().cpu()

    @property
    def labels(self) -> Tensor:
        """See `Examples.labels`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def fetch(self, ids: Tensor) -> Tensor:
        """See `Examples.fetch`."""
        found: Tensor = self.x[ids.to(self.x.device)]
        return found

    def sha256(self) -> str:
        """See `Examples.sha256`."""
        digest = hashlib.sha256(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        for part in (self.x, self._labels):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@final
class Items:
    """Examples of a torch data set of pairs (x, y), asked for one by one; its own random transforms stay at work."""

    def __init__(self, data: Any) -> None:
        self.data = data
        targets = getattr(data, "targets", None)
        found = targets if targets is not None else [data[place][1] for place in range(len(data))]
        self._labels = torch.as_tensor(found).long()

    @property
    def labels(self) -> Tensor:
        """See `Examples.labels`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def fetch(self, ids: Tensor) -> Tensor:
        """See `Examples.fetch`."""
        return torch.stack([torch.as_tensor(self.data[int(place)][0]) for place in ids])

    def sha256(self) -> str:
        """Return the hash of the labels and of the data set's name: its items may differ each time."""
        return hashlib.sha256(type(self.data).__qualname__.encode() + self._labels.numpy().tobytes()).hexdigest()


def opened(data: object) -> Examples:
    """Return examples: of a pair (x, y) of tensors, a torch data set or its DataLoader, a source of `st.audit`.

    Of a DataLoader the data set alone is used: order and batches are the loop's.

    Raises:
        UsageError: something else.
        DataError: it is empty, or has one class only.
    """
    if isinstance(data, Examples):
        found: Examples = data
    elif isinstance(data, tuple | list) and len(data) == 2:
        found = Tensors(*data)
    else:
        items = data.dataset if isinstance(data, DataLoader) else data
        if not hasattr(items, "__getitem__") or not isinstance(items, Sized) or isinstance(items, str | bytes | Tensor):
            raise UsageError(
                f"data of type {type(data).__name__} cannot be trained on; give tensors (x, y), a torch Dataset with "
                "a length, or its DataLoader. The command line also opens files: `steepest harden`."
            )
        found = Items(items)
    labels = found.labels
    if len(labels) < 2 or bool((labels == labels[0]).all()):
        what = f"all have the label {int(labels[0])}" if len(labels) else "there are none"
        raise DataError(f"of {len(labels)} examples {what}: training needs at least two classes (is the data sorted?).")
    return found


def split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return (ids to learn from, ids held out), rising; of each class `share`, at most 1000 together."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    part = min(share, MOST_HELD / max(1, len(labels)))
    drawn = Stream.of(seed, torch.arange(len(labels))).split(_HELD).uniform(0, ())
    for label in torch.unique(labels):
        places = (labels == label).nonzero()[:, 0]
        count = min(round(part * len(places)), len(places) - 1)
        held[places[drawn[places].argsort()[:count]]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def shuffled(ids: Tensor, seed: int, epoch: int) -> Tensor:
    """Return the ids in the order of an epoch, the same for the same (seed, epoch) on every machine."""
    return ids[Stream.of(seed, ids).split(_ORDER).split(epoch).uniform(0, ()).argsort(stable=True)]


def varied(x: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
    """Return images [N, C, H, W] moved by up to an eighth of their height, mirrored inwards at the edge, half of
    them flipped from left to right; the same for the same (seed, epoch, id).

    Raises:
        UsageError: the examples are no images.
    """
    if x.ndim != 4 or min(x.shape[2:]) < _PADDED:
        raise UsageError(
            f"augment='crop-flip' is for images [N, C, H, W] of at least 8×8, not examples of shape "
            f"{tuple(x.shape[1:])}: leave it out."
        )
    count, _, high, wide = x.shape
    edge = high // _PADDED
    drawn = Stream.of(seed, ids).split(_VARIED).split(epoch).uniform(0, (3,)).to(x.device)
    move = (drawn[:, :2] * (2 * edge + 1)).long()
    rows = (move[:, :1] + torch.arange(high, device=x.device))[:, :, None]
    columns = (move[:, 1:] + torch.arange(wide, device=x.device))[:, None, :]
    wider = pad(x, (edge, edge, edge, edge), mode="reflect")
    moved = wider.permute(0, 2, 3, 1)[torch.arange(count, device=x.device)[:, None, None], rows, columns]
    found = moved.permute(0, 3, 1, 2)
    return torch.where((drawn[:, 2] < 0.5)[:, None, None, None], found, found.flip(3)).contiguous()
