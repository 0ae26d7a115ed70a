"""The landscape of a diagnosis in pictures: planes as heat maps, histograms, and which search breaks what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from steepest.report.contract import Plot, Table
from steepest.report.plots import framed, plot, text
from steepest.report.wording import MISSING, measured, percent

SHADES = 5
"""Steps of a heat map's scale on either side of 0."""

_SIDE, _LEFT, _TOP, _BOTTOM = 190, 40, 6, 40
_BINS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The plane of one example: the truth, and the linear prediction beside it."""

    title: str
    truth: Markup
    linear: Markup
    story: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Searches × searches: the diagonal counts what each broke, a cell what its row broke and its column did not."""

    names: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    count: int
    story: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenery:
    """All pictures of a diagnosis; what was not measured is empty or None, and a note says why."""

    views: tuple[View, ...]
    margins: Plot | None
    sizes: Plot | None
    zeros: str
    ways: Ways | None
    notes: tuple[str, ...]


def scenery(summary: Mapping[str, Any]) -> Scenery | None:
    """Return the pictures of a run or of a diagnosis, None where it has none."""
    found = summary.get("scenery")
    if not found:
        return None
    planes, sizes = found.get("planes"), found.get("sizes")
    views = [] if planes is None else [_view(each, planes["shares"], n) for n, each in enumerate(planes["examples"])]
    return Scenery(
        views=tuple(views),
        margins=_histogram(
            found.get("margins"), "Margins at x, and where PGD ended under each objective", "margin (wrong from 0 on)"
        ),
        sizes=_histogram(_logarithms(sizes), "Size of the gradient at x under each objective", "log₁₀ of its length"),
        zeros=_zeros(sizes),
        ways=_ways(found.get("ways")),
        notes=tuple(str(note) for note in found.get("notes") or []),
    )


def _view(example: Mapping[str, Any], shares: Sequence[float], number: int) -> View:
    truth, linear = (np.array(example[key], dtype=float) for key in ("value", "linear"))
    scale = float(np.nanmax(np.abs([truth, linear]), initial=0.0)) if np.isfinite([truth, linear]).any() else 0.0
    title = f"Example {example['id']}"
    wrong = [
        float((part[np.isfinite(part)] >= 0).mean()) if np.isfinite(part).any() else None for part in (truth, linear)
    ]
    error = np.nanmax(np.abs(truth - linear), initial=0.0) if np.isfinite(truth - linear).any() else None
    story = (
        f"Wrong on {percent(wrong[0])} of the plane, by the linear prediction on {percent(wrong[1])}; the two differ "
        f"by at most {error:.3g} in the margin."
        if error is not None
        else "No value in this plane is finite."
    )
    names = ("margin", "linear prediction")
    return View(
        title=title,
        truth=_heat(truth, shares, scale, f"{title}, the margin over the plane. {_span(truth)}", f"plane-{number}-0"),
        linear=_heat(linear, shares, scale, f"{title}, the linear prediction. {_span(linear)}", f"plane-{number}-1"),
        story=story,
        tables=tuple(
            _numbers(part, shares, f"{title}: {name}") for part, name in zip((truth, linear), names, strict=True)
        ),
    )


def _span(values: NDArray[Any]) -> str:
    finite = values[np.isfinite(values)]
    return f"From {finite.min():.3g} to {finite.max():.3g}; wrong from 0 on." if finite.size else "Nothing is finite."


def _heat(values: NDArray[Any], shares: Sequence[float], scale: float, label: str, key: str) -> Markup:
    """One cell for each point, FGSM's direction to the right; the line divides right from wrong predictions."""
    count = len(shares)
    side = _SIDE / count
    cells: dict[str, list[str]] = {}
    for a, b in np.ndindex(values.shape):
        name = _shade(float(values[a, b]), scale)
        cells.setdefault(name, []).append(
            f"M{_LEFT + a * side:.1f} {_TOP + (count - 1 - b) * side:.1f}h{side:.2f}v{side:.2f}h-{side:.2f}z"
        )
    parts = [f'<path class="{name}" d="{"".join(paths)}"/>' for name, paths in sorted(cells.items())]
    parts.append(f'<path class="border" d="{_border(values, side)}"/>')
    unit = _SIDE / (count * (shares[1] - shares[0])) if count > 1 else 0.0
    middle_x, middle_y = _LEFT + _SIDE / 2, _TOP + _SIDE / 2
    corner = f'x="{middle_x - unit:.1f}" y="{middle_y - unit:.1f}"'
    parts.append(f'<rect class="budget" {corner} width="{2 * unit:.1f}" height="{2 * unit:.1f}"/>')
    parts.append(f'<circle class="here" cx="{middle_x:.1f}" cy="{middle_y:.1f}" r="3.2"/>')
    parts.append(f'<path class="there" d="M{middle_x + unit - 4:.1f} {middle_y - 4:.1f}l8 8m0 -8l-8 8"/>')
    for share in (-1, 0, 1):
        parts.append(text(middle_x + share * unit, _TOP + _SIDE + 15, share, ' text-anchor="middle"'))
        parts.append(text(_LEFT - 6, middle_y - share * unit + 4, share, ' text-anchor="end"'))
    parts.append(text(middle_x, _TOP + _SIDE + 32, "FGSM’s direction →", ' text-anchor="middle"'))
    turned = f' text-anchor="middle" transform="rotate(-90 12 {middle_y:.0f})"'
    parts.append(text(12, middle_y, "random direction →", turned))
    return framed("".join(parts), (_LEFT + _SIDE + 6, _TOP + _SIDE + _BOTTOM), label)


def _shade(value: float, scale: float) -> str:
    """The class of a cell: r1 … r5 right and ever surer, w1 … w5 wrong; x where there is no number.

    >>> _shade(-2.0, 2.0), _shade(0.0, 2.0), _shade(float("nan"), 2.0)
    ('r5', 'w1', 'x')
    """
    if not math.isfinite(value):
        return "x"
    strength = min(SHADES, 1 + math.floor(SHADES * abs(value) / scale)) if scale else 1
    return f"{'w' if value >= 0 else 'r'}{strength}"


def _border(values: NDArray[Any], side: float) -> str:
    """The edges between cells whose predictions are right and cells whose are wrong."""
    wrong, count, edges = values >= 0, len(values), []
    for a, b in np.ndindex(values.shape):
        x, y = _LEFT + a * side, _TOP + (count - 1 - b) * side
        if a + 1 < count and wrong[a, b] != wrong[a + 1, b]:
            edges.append(f"M{x + side:.1f} {y:.1f}v{side:.2f}")
        if b + 1 < count and wrong[a, b] != wrong[a, b + 1]:
            edges.append(f"M{x:.1f} {y:.1f}h{side:.2f}")
    return "".join(edges)


def _numbers(values: NDArray[Any], shares: Sequence[float], caption: str) -> Table:
    head = ("random ↓ FGSM →", *(f"{share:.3g}" for share in shares))
    rows = tuple(
        (f"{shares[b]:.3g}", *(f"{value:.3g}" if math.isfinite(value) else MISSING for value in values[:, b]))
        for b in reversed(range(len(shares)))
    )
    return Table(caption=caption, head=head, rows=rows)


def _histogram(groups: Mapping[str, Sequence[Any]] | None, title: str, x: str) -> Plot | None:
    """All groups over the same bins."""
    finite = {name: [value for value in values if measured(value)] for name, values in (groups or {}).items()}
    every = [value for values in finite.values() for value in values]
    if not every:
        return None
    low, high = min(every), max(every)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    series = []
    for name, values in finite.items():
        counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
        series.append({"name": name, "x": edges[:-1].tolist(), "y": counts.tolist()})
    picture = {"kind": "histogram", "title": title, "x": x, "y": "examples", "series": series}
    return plot(picture, "margins" if "margin" in x else "sizes")


def _logarithms(sizes: Mapping[str, Sequence[Any]] | None) -> dict[str, list[float]]:
    found = {
        name: [value for value in values if measured(value) and value > 0] for name, values in (sizes or {}).items()
    }
    return {name: [math.log10(value) for value in values] for name, values in found.items()}


def _zeros(sizes: Mapping[str, Sequence[Any]] | None) -> str:
    parts = [f"{values.count(0.0)} under {name}" for name, values in (sizes or {}).items() if values.count(0.0)]
    return f"A gradient of exactly 0 has no logarithm and is not drawn: {', '.join(parts)}." if parts else ""


def _ways(found: Mapping[str, Sequence[bool]] | None) -> Ways | None:
    if not found:
        return None
    broken = {name: np.array(flags, dtype=bool) for name, flags in found.items()}
    count = len(next(iter(broken.values())))
    rows = []
    for name, mine in broken.items():
        numbers = [int(mine.sum() if other == name else (mine & ~flags).sum()) for other, flags in broken.items()]
        rows.append(tuple((number, number / max(1, count)) for number in numbers))
    every = int(np.any(list(broken.values()), axis=0).sum())
    best = max(broken, key=lambda name: int(broken[name].sum()))
    return Ways(
        names=tuple(broken),
        rows=tuple(rows),
        count=count,
        story=f"Together they break {every} of {count}; the strongest alone, {best}, {int(broken[best].sum())}.",
    )
