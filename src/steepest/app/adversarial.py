"""Where the points of an attack go: a .npz file, a folder of PNG images, one PNG image, or nowhere."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from steepest.app.eightbit import rounded_inside
from steepest.audit.subject import Subject
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget
from steepest.models.contract import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """What one batch of an attack hands over; all with leading axis N."""

    ids: Tensor
    x: Tensor
    y: Tensor
    point: Tensor
    prediction: Tensor
    fooled: Tensor


class Sink(Protocol):
    """Takes points batch by batch, holds no more than one batch in memory, and puts them in place at the end."""

    def take(self, points: Points) -> None:
        """Keep a batch."""

    def close(self, path: Path) -> None:
        """Put everything at `path`."""

    def rounded(self) -> dict[str, int] | None:
        """Return what rounding to 8 bits did, or None where nothing was rounded."""


def sink_for(path: Path | None, subject: Subject, budget: Budget, objective: Objective) -> Sink:
    """Return the sink that a path asks for.

    Raises:
        UsageError: an unknown ending, or examples that are no images.
    """
    if path is None:
        return Nowhere()
    ending = path.suffix.lower()
    if ending == ".npz":
        return Archive()
    if ending not in ("", ".png"):
        raise UsageError(
            f"the output {str(path)!r} ends in {ending!r}; allowed: .npz, a folder/, or .png for one image."
        )
    if ending == ".png" and len(subject.ids) > 1:
        raise UsageError(f"{len(subject.ids)} examples do not fit into {str(path)!r}: give a folder/, or a .npz file.")
    return Pictures(subject, budget, objective, single=ending == ".png")


@final
class Nowhere:
    """Forgets the points; the numbers are what was wanted."""

    def take(self, points: Points) -> None:
        """Keep nothing."""

    def close(self, path: Path) -> None:
        """Write nothing."""

    def rounded(self) -> dict[str, int] | None:
        """See `Sink`."""
        return None


@final
class Archive:
    """A .npz file with images, labels, predictions, ids and clean; written through plain files, not memory."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._streams: dict[str, Any] = {}
        self._count = 0

    def take(self, points: Points) -> None:
        """See `Sink`."""
        self._count += len(points.ids)
        for name, tensor in (
            ("images", points.point.float()),
            ("labels", points.y),
            ("predictions", points.prediction),
            ("ids", points.ids),
            ("clean", points.x.float()),
        ):
            array: NDArray[Any] = tensor.cpu().contiguous().numpy()
            if name not in self._streams:
                self._streams[name] = tempfile.TemporaryFile()  # noqa: SIM115 — open until `close`
                self._shapes[name] = array.dtype, array.shape[1:]
            self._streams[name].write(array.tobytes())

    def close(self, path: Path) -> None:
        """See `Sink`."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, stream in self._streams.items():
                dtype, features = self._shapes[name]
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                stream.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, {**header, "shape": (self._count, *features)})
                    shutil.copyfileobj(stream, member, 1 << 20)
                stream.close()

    def rounded(self) -> dict[str, int] | None:
        """See `Sink`."""
        return None


@final
class Pictures:
    """Lossless PNG images of 8 bits, in a folder for each class; what is written is what the model is asked about.

    The folder can be audited as it is: every class has its folder, in the order of the model's outputs.

    Raises:
        UsageError: the examples are no images in [0, 1].
    """

    def __init__(self, subject: Subject, budget: Budget, objective: Objective, *, single: bool) -> None:
        shape, box = subject.source.shape, subject.model.box
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UsageError(f"examples of shape {shape} are no images of 1 or 3 channels: give -o adversarial.npz.")
        if float(torch.as_tensor(box.lower).min()) < 0 or float(torch.as_tensor(box.upper).max()) > 1:
            raise UsageError(f"8-bit images hold values from 0 to 1, the box is {box!r}: give -o adversarial.npz.")
        self._subject, self._budget, self._goal, self._single = subject, budget, objective.goal, single
        self._held = tempfile.TemporaryDirectory(prefix="steepest-")
        self._names = _folders(subject)
        self._counts = {"fooled": 0, "left_out": 0}
        for name in [] if single else self._names:
            (Path(self._held.name) / name).mkdir(exist_ok=True)

    def take(self, points: Points) -> None:
        """See `Sink`."""
        shades, feasible = rounded_inside(
            points.x, points.point, self._budget.rows(points.ids), self._subject.model.box
        )
        # As a reader of the file will see it.
        decoded = (shades.float() / 255).to(points.x)
        won = self._goal(self._subject.model.logits(decoded), points.y)
        self._counts["fooled"] += int((won & feasible & points.fooled).sum())
        self._counts["left_out"] += int((~feasible).sum())
        for row in feasible.nonzero().squeeze(1).tolist():
            image = shades[row].permute(1, 2, 0).cpu().numpy()
            folder = "" if self._single else self._names[int(points.y[row])]
            path = Path(self._held.name) / folder / f"{int(points.ids[row]):06d}.png"
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image)).save(path)

    def close(self, path: Path) -> None:
        """See `Sink`."""
        root = Path(self._held.name)
        if self._single:
            made = list(root.glob("*.png"))
            if not made:
                raise UsageError("no 8-bit image lies inside the budget: give -o adversarial.npz.")
            shutil.copyfile(made[0], path)
        else:
            shutil.copytree(root, path)
        self._held.cleanup()

    def rounded(self) -> dict[str, int] | None:
        """See `Sink`."""
        return dict(self._counts)


def _folders(subject: Subject) -> list[str]:
    """Names of class folders: the classes' own, made safe for a path, or their numbers so that order is kept."""
    classes = subject.model.facts.classes or int(subject.source.labels.max()) + 1
    width = len(str(classes - 1))
    numbers = [f"{index:0{width}d}" for index in range(classes)]
    names = [name.replace("/", "_").replace("\\", "_").lstrip(".") for name in subject.source.class_names or ()]
    if len(names) < classes or len(set(names)) < len(names) or not all(name.isprintable() and name for name in names):
        return numbers
    return names
