"""The same question asked again: with other random numbers, with the same ones, and many times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steepest.diagnose.probe import Probe
from steepest.models.inspection import REPEATABLE, size_of
from steepest.models.state import untouched

DRAWS, MANY = 5, 4096
"""Answers with different random numbers; and questions about examples after which a count of them should have shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How answers at x differ when they are asked for again; spreads are shares of the largest output, [N].

    Attributes:
        drawn: the largest difference between answers with different random numbers.
        kept: the largest difference between answers with the same ones: a state that the model keeps.
        right: how many predictions were right, for each of the `DRAWS`.
        buffers, numbers: names of what asking changed: buffers, and numbers among the attributes of modules.
        asked: so many questions about examples were asked.
    """

    drawn: Tensor
    kept: Tensor
    right: tuple[int, ...]
    buffers: tuple[str, ...]
    numbers: tuple[str, ...]
    asked: int


def repeats(probe: Probe) -> Repeats:
    """Return what asking again shows; measured once for each probe."""
    return probe.once("repeats", lambda: _measured(probe))


def stays(found: Repeats) -> bool:
    """Return whether answers with the same random numbers are the same."""
    return bool((found.kept <= REPEATABLE).all())


def _measured(probe: Probe) -> Repeats:
    buffers, numbers = _buffers(probe), _numbers(probe)
    first = answer(probe, 0)
    scale = max(size_of(first), torch.finfo(first.dtype).tiny)
    draws = [first, *(answer(probe, number) for number in range(1, DRAWS))]
    kept, asked = apart(answer(probe, 0), first, scale), (DRAWS + 1) * probe.count
    moved, counted = _changed(buffers, _buffers(probe)), _changed(numbers, _numbers(probe))
    hidden = moved or counted or not isinstance(probe.model.network, nn.Module)
    while hidden and asked < MANY and bool((kept <= REPEATABLE).all()):
        kept = torch.maximum(kept, apart(answer(probe, 0), first, scale))
        asked += probe.count
    return Repeats(
        drawn=torch.stack([apart(each, first, scale) for each in draws]).amax(0),
        kept=kept,
        right=tuple(int((each.argmax(1) == probe.y).sum()) for each in draws),
        buffers=moved,
        numbers=counted,
        asked=asked,
    )


def answer(probe: Probe, number: int, rows: Tensor | None = None) -> Tensor:
    """Return the answers at x, all global random generators starting from `number`."""
    with untouched(None, number):
        return probe.model.logits(probe.x if rows is None else probe.x[rows])


def apart(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return max |a − b| over the outputs of each example, in units of `scale`; the same NaN or infinity is none."""
    same = (a == b) | (a.isnan() & b.isnan())
    gap = (a.double() - b.double()).abs().nan_to_num(torch.inf, torch.inf)
    return torch.where(same, 0.0, gap).amax(1) / scale


def _changed(before: dict[str, str], after: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for name in after if before.get(name) != after[name])


def _buffers(probe: Probe) -> dict[str, str]:
    """Return a hash of every buffer."""
    found = {}
    for name, buffer in _parts(probe, lambda part: part.named_buffers(recurse=False)):
        raw = buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found[name] = hashlib.sha256(raw.tobytes()).hexdigest()
    return found


def _numbers(probe: Probe) -> dict[str, str]:
    """Return the numbers among the attributes of every module, as text."""
    found = _parts(probe, lambda part: vars(part).items())
    return {name: repr(value) for name, value in found if isinstance(value, int | float | np.generic)}


def _parts(probe: Probe, of: Callable[[nn.Module], Iterable[tuple[str, Any]]]) -> Iterator[tuple[str, Any]]:
    network = probe.model.network
    for path, part in network.named_modules() if isinstance(network, nn.Module) else ():
        yield from ((f"{path}.{name}" if path else name, value) for name, value in of(part))
