"""The digits that every network of the zoo is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from steepest.audit.data import open_data

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Scans of [N, 1, 8, 8] in [0, 1] and their classes: to learn from, and held out."""

    x_train: Tensor
    y_train: Tensor
    x: Tensor
    y: Tensor

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` held-out scans, spread over all writers."""
        rows = torch.linspace(0, len(self.y) - 1, count).long()
        return self.x[rows], self.y[rows]


@cache
def digits() -> Digits:
    """The scans come in the writers' order, so every fourth one is held out."""
    source = open_data("digits")
    x, y = source.fetch(torch.arange(len(source))), source.labels
    held = torch.arange(len(y)) % 4 == 0
    return Digits(x_train=x[~held], y_train=y[~held], x=x[held], y=y[held])
