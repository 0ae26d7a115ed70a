"""What the report is given, and the parts that a page is put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from steepest.basis.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Triple:
    """One example beside its adversarial version, as the gallery shows it.

    Attributes:
        example_id: its position in the data.
        stage: the stage of the audit that broke it.
        radius: size of the change in data units; NaN if it was not measured.
        clean, adversarial: one example each, of the same shape, in data units.
        lower, upper: the data values that are drawn black and white.

    Raises:
        DataError: the two shapes differ, a value is not finite, or lower is not below upper.
    """

    example_id: int
    label_name: str
    clean_prediction_name: str
    adversarial_prediction_name: str
    stage: str
    radius: float
    clean: NDArray[Any]
    adversarial: NDArray[Any]
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        who = f"the gallery's example {self.example_id}"
        if self.clean.shape != self.adversarial.shape:
            raise DataError(
                f"{who} has a clean input of shape {self.clean.shape} and an adversarial one of shape "
                f"{self.adversarial.shape}: both must be one example of the same shape. Drop the batch axis."
            )
        if not (np.isfinite(self.clean).all() and np.isfinite(self.adversarial).all()):
            raise DataError(f"{who} has NaN or infinite values; only finite ones can be drawn. Leave it out.")
        if not self.lower < self.upper:
            raise DataError(
                f"{who} is to be drawn from {self.lower} (black) to {self.upper} (white): "
                "lower must be below upper. Give the bounds of the box."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of ready texts; the first cell of each row is that row's header."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A static picture for wide and for narrow screens, and the table with the same numbers."""

    key: str
    title: str
    wide: Markup
    narrow: Markup
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A rule that a build demands of a run, whether the run keeps it, and what was measured where it does not."""

    text: str
    holds: bool
    says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A small static picture for every screen, the names of what is told apart in it, and tables of its numbers."""

    key: str
    title: str
    drawing: Markup
    legend: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A lossless image inside the page; `width` is in CSS pixels, `shrunk` if smaller than the image itself."""

    uri: str
    alt: str
    caption: str
    width: int
    height: int
    shrunk: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One example of the gallery: three pictures, or the features that changed most."""

    title: str
    label: str
    before: str
    after: str
    found: str
    scale: str
    pictures: tuple[Picture, ...] = ()
    features: Table | None = None
