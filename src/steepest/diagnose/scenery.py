"""What the pictures of a diagnosis show: planes through some examples, gradients and margins, who breaks whom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.basis.errors import ModelError, SteepestError
from steepest.basis.tensors import flat
from steepest.diagnose.checks.surrogate import hides, twin_of
from steepest.diagnose.probe import Probe
from steepest.landscape.slices import plane

OBJECTIVES = ("ce", "margin", "scaled-ce")
"""Under each of them gradients are measured and points searched for."""

PLANES, RESOLUTION, REACH = 4, 19, 1.5
"""So many examples get a plane, of so many points each way; steps of a sixth of the budget meet 0 and ±1."""

_SEARCH = "pgd(steps=20)"
_WAYS = (
    ("noise", "noise(points=20)", "scaled-ce"),
    *((f"fgsm, {name}", "fgsm", name) for name in OBJECTIVES),
    *((f"pgd, {name}", _SEARCH, name) for name in OBJECTIVES),
)
_PASSES = {"noise(points=20)": 20, "fgsm": 3, _SEARCH: 41, "at x": 2}
"""Forwards plus backwards of one example, for the estimate of time."""

_WORDS = {
    "sizes": "sizes of gradients",
    "planes": "planes around examples",
    "margins": "margins after a search",
    "ways": "which search breaks what",
}

_Part = Callable[[Probe], Any]


def scenery(probe: Probe, *, until: float | None = None) -> dict[str, Any]:
    """Measure what the pictures show, as plain JSON values with four significant digits.

    Args:
        until: parts that by their estimate would end after this moment of `time.perf_counter` are left out.

    Returns:
        "ids" of the examples that are right at x, and for them "sizes" (the gradient's Euclidean length under each
        objective), "margins" (at x, and where a search under each objective ended), "ways" (for each search, whether
        it broke them), "planes" (see `landscape.slices.Plane`, under the margin), and "notes" on what is missing and
        why. What is missing is None.
    """
    ids, notes = probe.ids[probe.right].tolist(), list[str]()
    made: dict[str, Any] = {"ids": ids, "objectives": list(OBJECTIVES)}
    parts: tuple[tuple[str, _Part, float], ...] = (
        ("sizes", _sizes, len(OBJECTIVES) * _PASSES["at x"]),
        ("planes", _planes, PLANES * (RESOLUTION**2 + 3) / max(1, probe.count)),
        ("margins", _margins, sum(_missing(probe, _SEARCH, name) for name in OBJECTIVES)),
        ("ways", _ways, sum(_missing(probe, call, name) for _, call, name in _WAYS)),
    )
    for name, part, passes in parts:
        late = until is not None and time.perf_counter() + passes * probe.count / probe.pace > until
        made[name] = None
        if not ids:
            continue
        if late:
            notes.append(f"{_WORDS[name]}: left out, the time given was spent")
            continue
        try:
            with probe.model.borrowed(probe.seed):
                made[name] = part(probe)
        except SteepestError as error:
            notes.append(f"{_WORDS[name]}: {error}")
        except Exception as error:  # the user's model may raise anything, and the other parts go on
            notes.append(f"{_WORDS[name]}: the model raised {type(error).__name__}")
    return {**made, "notes": notes}


def _missing(probe: Probe, call: str, objective: str) -> int:
    """Return the passes of a search; none where checks have made it."""
    return 0 if probe.found(call, objective) else _PASSES[call]


def _sizes(probe: Probe) -> dict[str, list[float | None]]:
    return {name: _numbers(_length(probe, name)[probe.right]) for name in OBJECTIVES}


def _length(probe: Probe, objective: str) -> Tensor:
    gradient = probe.at_x(objective).gradient
    if gradient is None:
        raise ModelError(f"no gradient of {objective} reaches x: there is none to measure.")
    length: Tensor = torch.linalg.vector_norm(flat(gradient).double(), dim=1)
    return length


def _margins(probe: Probe) -> dict[str, list[float | None]]:
    """The margin L = max over other classes of z − z_y is above 0 where the prediction is wrong."""
    found = {"at x": probe.terrain().value(probe.x).value}
    for name in OBJECTIVES:
        found[name] = probe.terrain().value(probe.attacked(_SEARCH, name).point).value
    return {name: _numbers(value[probe.right]) for name, value in found.items()}


def _ways(probe: Probe) -> dict[str, list[bool]]:
    found = {name: probe.broken(call, objective) for name, call, objective in _WAYS}
    if hides(probe):
        found["pgd, surrogate"] = probe.right & probe.attacked(_SEARCH, "scaled-ce", twin_of(probe), "surrogate").won
    return {name: broken[probe.right].tolist() for name, broken in found.items()}


def _planes(probe: Probe) -> dict[str, Any]:
    """Planes of examples that are evenly spaced in the order of their margin at x, the surest last."""
    rows = probe.right.nonzero().squeeze(1)
    order = rows[probe.terrain().value(probe.x).value[rows].argsort(descending=True, stable=True)]
    chosen = order[_spread(len(order), PLANES)]
    found = plane(probe.terrain().rows(chosen), resolution=RESOLUTION, reach=REACH)
    return {
        "objective": "margin",
        "shares": _numbers(found.fgsm.round(decimals=6)),
        "examples": [
            {
                "id": int(probe.ids[row]),
                "value": [_numbers(line) for line in found.value[place]],
                "linear": [_numbers(line) for line in found.linear[place]],
            }
            for place, row in enumerate(chosen.tolist())
        ],
    }


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` places out of `count`, evenly spaced, the first and the last among them.

    >>> _spread(9, 3), _spread(2, 4), _spread(5, 1)
    ([0, 4, 8], [0, 1], [0])
    """
    few = min(count, most)
    return [round(place * (count - 1) / max(1, few - 1)) for place in range(few)]


def _numbers(values: Tensor | Sequence[float]) -> list[float | None]:
    """Return four significant digits of each; None for what is not finite.

    >>> _numbers(torch.tensor([1.23456, torch.nan]))
    [1.235, None]
    """
    listed = torch.as_tensor(values).double().tolist()
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in listed]
