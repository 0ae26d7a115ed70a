"""A folder with one folder of images per class, and the single image file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from steepest.audit.data.adapt import require_ids
from steepest.audit.data.hashing import file_sha256, tree_sha256
from steepest.audit.data.images import ENDINGS, Probe, decode, probe, size_error
from steepest.audit.data.labels import from_names
from steepest.basis.errors import DataError, UsageError, unknown

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFiles:
    """Image files with a label each; pixels are decoded when fetched, to [C, H, W] in [0, 1]."""

    root: Path
    files: tuple[Path, ...]
    shape: tuple[int, ...]
    resized: bool
    labels: Tensor
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    kind: str

    @property
    def name(self) -> str:
        """The path of the folder or file."""
        return str(self.root)

    def __len__(self) -> int:
        """Return N."""
        return len(self.files)

    def fetch(self, ids: Tensor) -> Tensor:
        """Return the examples `ids` in that order, float32 [n, C, H, W]."""
        chosen = [self.files[place] for place in require_ids(ids, len(self))]
        images = torch.empty(len(chosen), *self.shape)
        for row, path in enumerate(chosen):
            images[row] = decode(path, name=str(path), shape=self.shape, resize=self.resized)
        return images

    def sha256(self) -> str:
        """Return the hash over the names and contents of the files, or of the one file."""
        return file_sha256(self.root) if self.kind == "image" else tree_sha256(self.root, self.files)


def open_folder(
    path: Path, *, order: tuple[str, ...] | None = None, resize: tuple[int, int] | None = None
) -> ImageFiles:
    """Open a folder of class folders; examples count in sorted order of class and file name.

    Raises:
        DataError: no class folders, no image, a broken image, images of two sizes, or a class not in `order`.
    """
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    _require_classes(path, classes)
    files: list[Path] = []
    index: list[int] = []
    notes: list[str] = []
    for number, name in enumerate(classes):
        images, others = _walk(path / name)
        files += images
        index += [number] * len(images)
        if others:
            notes.append(f"{others} file(s) in class folder {name!r} are not images and were ignored.")
        if not images:
            notes.append(f"Class folder {name!r} has no images; it still counts as a class.")
    if not files:
        raise DataError(
            f"{path} has {len(classes)} class folder(s) but no image in them; allowed endings: {', '.join(ENDINGS)}."
        )
    labels, names, more = from_names(classes, torch.tensor(index), order, where=str(path))
    shape, adapted = _probed(files, resize)
    return ImageFiles(
        root=path,
        files=tuple(files),
        shape=shape,
        resized=resize is not None,
        labels=labels,
        class_names=names,
        notes=(*adapted, *notes, *more),
        kind="folder",
    )


def open_image(
    path: Path,
    *,
    label: int | str | None,
    order: tuple[str, ...] | None = None,
    resize: tuple[int, int] | None = None,
) -> ImageFiles:
    """Open one image file as a data set of one example; without a label it is -1, unknown.

    Raises:
        UsageError: a label that is negative or not among the class names.
        DataError: a broken image.
    """
    shape, adapted = _probed([path], resize)
    return ImageFiles(
        root=path,
        files=(path,),
        shape=shape,
        resized=resize is not None,
        labels=torch.tensor([_index(label, order)]),
        class_names=order,
        notes=adapted,
        kind="image",
    )


def _index(label: int | str | None, order: tuple[str, ...] | None) -> int:
    if label is None:
        return -1
    if isinstance(label, str) and order is not None and label in order:
        return order.index(label)
    if isinstance(label, str) and not label.isdecimal():
        if order is not None:
            raise unknown("label", label, order)
        raise UsageError(f"label {label!r} is a name: give --labels with the class names, or the label as an index.")
    index = int(label)
    if index < 0 or (order is not None and index >= len(order)):
        allowed = "0 upwards" if order is None else f"0 to {len(order) - 1}, or a name among {', '.join(order[:20])}"
        raise UsageError(f"label {label} is out of range: allowed is {allowed}. Leave it out if it is unknown.")
    return index


def _require_classes(path: Path, classes: list[str]) -> None:
    if not classes:
        raise DataError(
            f"{path} has no class folders: allowed is one folder per class with its images inside "
            f"({path.name}/cat/1.png). Sort the images into such folders, or give a .npz or .parquet file with labels."
        )
    if {name.lower() for name in classes} <= _SPLITS:
        raise DataError(
            f"the folders in {path} ({', '.join(classes)}) look like splits, not classes: give one of them, "
            f"e.g. {path / classes[0]}."
        )


def _walk(folder: Path) -> tuple[list[Path], int]:
    images: list[Path] = []
    others = 0
    for place, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            if name.lower().endswith(ENDINGS):
                images.append(Path(place, name))
            else:
                others += 1
    return images, others


def _probed(files: list[Path], resize: tuple[int, int] | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    probes = [probe(path, name=str(path)) for path in files]
    size = resize or probes[0].size
    if resize is None:
        for path, found in zip(files, probes, strict=True):
            if found.size != size:
                raise size_error(str(path), found.size, str(files[0]), size)
    return (1 if all(found.gray for found in probes) else 3, *size), image_notes(probes, resize)


def image_notes(probes: Iterable[Probe], resize: tuple[int, int] | None) -> tuple[str, ...]:
    """Return one sentence for each change that decoding these images makes."""
    found = list(probes)
    notes = ["8-bit pixels were divided by 255."]
    if resize is not None:
        notes.append(f"Images were resized to {resize[0]}x{resize[1]} (bilinear, antialiased).")
    if any(image.turned for image in found):
        notes.append(f"{sum(image.turned for image in found)} image(s) were turned upright as their EXIF data asks.")
    if any(image.alpha for image in found):
        notes.append(f"Transparency was dropped in {sum(image.alpha for image in found)} image(s).")
    if 0 < sum(image.gray for image in found) < len(found):
        notes.append(f"{sum(image.gray for image in found)} grayscale image(s) became RGB.")
    return tuple(notes)
