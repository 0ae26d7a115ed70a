"""Sources of labelled examples: files, folders, tensors, data sets; one call opens any of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from steepest.audit.data.builtin import open_digits
from steepest.audit.data.contract import Batch, Source
from steepest.audit.data.folder import open_folder, open_image
from steepest.audit.data.hashing import pixel_hash
from steepest.audit.data.images import ENDINGS, require_size
from steepest.audit.data.labels import class_order
from steepest.audit.data.memory import open_tensors
from steepest.audit.data.npz import open_npz
from steepest.audit.data.parquet import open_parquet
from steepest.audit.data.selection import batches, preview, select
from steepest.audit.data.torch_data import is_dataset, open_dataset, open_loader
from steepest.basis.errors import DataError, UsageError

__all__ = ["Batch", "Source", "batches", "open_data", "pixel_hash", "preview", "select"]

_BUILTIN = "digits"
_IMAGE_ENDINGS = " ".join(ENDINGS)
_ALLOWED = (
    f"a folder of class folders, .npz, .parquet, one image ({_IMAGE_ENDINGS}) with a label, or the built-in 'digits'"
)
_REMEDIES = {
    ".npy": "Save images and labels together: numpy.savez(path, images=..., labels=...).",
    ".csv": "Convert it: pandas.read_csv(path).to_parquet(...), with a column 'label'.",
    ".pt": "Save plain arrays: numpy.savez(path, images=..., labels=...), or pass the tensors in Python.",
    ".pth": "Save plain arrays: numpy.savez(path, images=..., labels=...), or pass the tensors in Python.",
    ".pkl": "Pickles can run code, so they are not read: numpy.savez(path, images=..., labels=...).",
    ".zip": "Unpack it and give the folder of class folders.",
    ".gz": "Unpack it first.",
}


def open_data(
    source: object,
    *,
    labels: Sequence[str] | None = None,
    resize: tuple[int, int] | None = None,
    label: int | str | None = None,
) -> Source:
    """Open labelled examples of any kind; the kind is found from the path's ending or the object's type.

    Args:
        source: a path (`.npz`, `.parquet`, a folder of class folders, one image), "digits", a pair (x, y) of tensors
            or arrays, a torch Dataset, or a DataLoader.
        labels: class names in the order of the model's outputs; folders and words are matched to it by name.
        resize: (height, width) for image files and image bytes.
        label: class index or name of a single image; None if it is unknown (kept as -1).

    Raises:
        DataError: it cannot be read, is empty, or its labels do not fit; names the file, what is allowed, the remedy.
        UsageError: an argument that does not apply to this kind of source.

    >>> open_data("digits").shape
    (1, 8, 8)
    """
    order = class_order(labels)
    require_size(resize)
    if isinstance(source, str | Path) and source != _BUILTIN:
        path = Path(source).expanduser()
        try:
            return _open_path(path, order, resize, label)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from None
    _refuse("label", label, "a single image file")
    _refuse("resize", resize, "image files and image bytes")
    if isinstance(source, str | Path):
        return open_digits(order=order)
    return _open_object(source, order)


def _open_path(
    path: Path, order: tuple[str, ...] | None, resize: tuple[int, int] | None, label: int | str | None
) -> Source:
    if not path.exists():
        raise _missing(path)
    ending = path.suffix.lower()
    if path.is_file() and ending in ENDINGS:
        return open_image(path, label=label, order=order, resize=resize)
    _refuse("label", label, "a single image file")
    if path.is_dir():
        return open_folder(path, order=order, resize=resize)
    if ending == ".parquet":
        return open_parquet(path, order=order, resize=resize)
    _refuse("resize", resize, "image files and image bytes")
    if ending == ".npz":
        return open_npz(path, order=order)
    raise DataError(f"{path} ends in {ending or 'nothing'}; allowed: {_ALLOWED}. {_REMEDIES.get(ending, '')}".strip())


def _open_object(source: object, order: tuple[str, ...] | None) -> Source:
    if isinstance(source, tuple | list) and len(source) == 2:
        return open_tensors(source[0], source[1], order=order)
    if isinstance(source, DataLoader):
        return open_loader(source, order=order)
    if isinstance(source, Source):
        _refuse("labels", order, "data that is not opened yet")
        return source
    if is_dataset(source) and not isinstance(source, tuple | list | dict | Tensor | np.ndarray):
        return open_dataset(source, order=order)
    raise UsageError(
        f"data of type {type(source).__name__} cannot be opened; allowed: a path, a pair (x, y) of tensors or arrays, "
        "a torch Dataset, a DataLoader. Labels are needed: give (x, y)."
    )


def _missing(path: Path) -> DataError:
    folder = path.parent
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, [*names, _BUILTIN], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    place = "" if folder.is_dir() else f" The folder {folder} does not exist either."
    return DataError(f"{path} does not exist{hint}{place} Allowed: {_ALLOWED}.")


def _refuse(name: str, value: object, what: str) -> None:
    if value is not None:
        raise UsageError(f"{name}={value!r} applies to {what} only: leave --{name} out.")
