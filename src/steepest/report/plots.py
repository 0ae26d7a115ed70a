"""Small plots drawn by hand as static SVG, for evidence that comes by the dozen; each with the table of its numbers.

Colours and dashes are classes of the page's style, so one drawing serves light, dark and paper, wide and narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from steepest.report.contract import Plot, Table
from steepest.report.wording import MISSING, measured

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 340, 200, 58, 12, 12, 40
LOOKS = 6
"""Series look different up to this number; then looks come again."""

_BAR = 46
_Points = list[tuple[float, float]]


def plot(picture: Mapping[str, Any], key: str) -> Plot | None:
    """Return the plot of a finding's picture, or None where nothing finite is left to draw.

    `kind` is "lines", "bars" or "histogram" as in `diagnose.contract.Picture`; any other kind is drawn as lines.
    """
    series = [(str(each["name"]), _finite(each)) for each in picture["series"]]
    drawn = [points for _, points in series if points]
    if not drawn:
        return None
    single = picture["kind"] == "bars" and all(len(points) <= 1 for _, points in series)
    inner = _rows(series) if single else _plane(picture, series)
    high = _BAR * len(series) + BOTTOM if single else HIGH
    title = str(picture["title"])
    return Plot(
        key=key,
        title=title,
        drawing=framed(inner, (WIDE, high), f"{title}. {_story(picture, series)}"),
        legend=() if single or len(series) == 1 else tuple(name for name, _ in series),
        tables=(_table(picture, series, single=single),),
    )


def framed(inner: str, size: tuple[int, int], label: str) -> Markup:
    """Return shapes as one picture with a name; shapes are drawn `size` CSS pixels large, and smaller if need be."""
    wide, high = size
    name = escape(label)
    return Markup(
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">'
        f"<title>{name}</title>{inner}</svg>"
    )


def text(x: float, y: float, words: object, more: str = "") -> str:
    """Return a text; `more` holds attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(str(words))}</text>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers inside [low, high], at most `most` steps.

    >>> ticks(0, 1), ticks(-0.3, 2.2)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.6g}") + 0.0 for place in range(first, last + 1)]


def _finite(series: Mapping[str, Any]) -> _Points:
    pairs = zip(series["x"], series["y"], strict=True)
    return [(float(x), float(y)) for x, y in pairs if measured(x) and measured(y)]


def _story(picture: Mapping[str, Any], series: Sequence[tuple[str, _Points]]) -> str:
    parts = []
    for name, points in series:
        if len(points) == 1:
            parts.append(f"{name}: {points[0][1]:.4g}")
        elif points:
            parts.append(
                f"{name}: {points[0][1]:.4g} at {points[0][0]:.4g}, {points[-1][1]:.4g} at {points[-1][0]:.4g}"
            )
    return f"{picture['y']} over {picture['x']}; {'; '.join(parts)}."


def _table(picture: Mapping[str, Any], series: Sequence[tuple[str, _Points]], *, single: bool) -> Table:
    if single:
        each = tuple((name, f"{points[0][1]:.4g}" if points else MISSING) for name, points in series)
        return Table(caption=str(picture["title"]), head=(str(picture["x"]), str(picture["y"])), rows=each)
    held = [dict(points) for _, points in series]
    places = sorted({x for points in held for x in points})
    rows = tuple((f"{x:.4g}", *(f"{points[x]:.4g}" if x in points else MISSING for points in held)) for x in places)
    names = tuple(name for name, _ in series) if len(series) > 1 else (str(picture["y"]),)
    return Table(caption=str(picture["title"]), head=(str(picture["x"]), *names), rows=rows)


def _rows(series: Sequence[tuple[str, _Points]]) -> str:
    """One bar below another, each under its name, its number at its end."""
    largest = max((abs(points[0][1]) for _, points in series if points), default=0.0) or 1.0
    room, parts = WIDE - RIGHT - 60, []
    for place, (name, points) in enumerate(series):
        y = TOP + _BAR * place
        parts.append(text(0, y + 8, name, ' class="name"'))
        if points:
            wide = room * abs(points[0][1]) / largest
            look = "bar" if points[0][1] >= 0 else "bar below"
            parts.append(f'<rect class="{look}" x="0" y="{y + 15}" width="{max(wide, 1):.1f}" height="14"/>')
            parts.append(text(wide + 6, y + 26, f"{points[0][1]:.4g}"))
        else:
            parts.append(text(0, y + 26, MISSING))
    return "".join(parts)


def _plane(picture: Mapping[str, Any], series: Sequence[tuple[str, _Points]]) -> str:
    """Axes, grid and marks; every series with a look of its own."""
    drawn = [points for _, points in series if points]
    xs, ys = ([point[side] for points in drawn for point in points] for side in (0, 1))
    width = _width(drawn) if picture["kind"] != "lines" else 0.0
    ends = min(xs), max(xs) + (width if picture["kind"] == "histogram" else 0.0)
    if picture["kind"] == "bars":
        ends = ends[0] - width / 2, ends[1] + width / 2
    logarithmic = picture["kind"] == "lines" and min(xs) > 0 and max(xs) / min(xs) >= 100
    across = _scale(*ends, LEFT, WIDE - RIGHT, logarithmic=logarithmic)
    low, high = _heights(ys, zero=picture["kind"] != "lines")
    marks = ticks(low, high)
    up = _scale(low, high, HIGH - BOTTOM, TOP)
    parts = [_axes(picture, ends, marks, across, up, logarithmic=logarithmic)]
    for number, points in enumerate(points for _, points in series):
        look = f"s{number % LOOKS}"
        if picture["kind"] == "histogram":
            parts.append(_stairs(points, width, look, across, up, filled=len(series) == 1))
        elif picture["kind"] == "bars":
            parts.append(_group(points, (number, len(series), width), look, across, up))
        else:
            parts.append(_line(points, look, across, up))
    return "".join(parts)


def _width(drawn: Sequence[_Points]) -> float:
    """The distance of neighbours on the axis: of bins, or of groups of bars."""
    places = sorted({x for points in drawn for x, _ in points})
    steps = [after - before for before, after in pairwise(places)]
    return min(steps, default=1.0)


def _heights(ys: Sequence[float], *, zero: bool) -> tuple[float, float]:
    """The ends of the upright axis: 0 is on it, unless lines would be a stripe far above it.

    >>> _heights([2, 5], zero=False), _heights([8, 9], zero=False), _heights([-2, -1], zero=True)
    ((0.0, 5), (8, 9), (-2, 0.0))
    """
    least, most = min(ys), max(ys)
    if zero or not (least > 0.7 * most > 0 or most < 0.7 * least < 0):
        least, most = min(0.0, least), max(0.0, most)
    return (least, most) if most > least else (least, least + 1)


_Scale = Callable[[float], float]


def _scale(low: float, high: float, start: float, end: float, *, logarithmic: bool = False) -> _Scale:
    if not high > low:
        return lambda value: (start + end) / 2 + 0 * value
    if logarithmic:
        return lambda value: start + (end - start) * math.log(value / low) / math.log(high / low)
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _axes(
    picture: Mapping[str, Any],
    ends: tuple[float, float],
    marks: Sequence[float],
    across: _Scale,
    up: _Scale,
    *,
    logarithmic: bool,
) -> str:
    base = HIGH - BOTTOM
    parts = [f'<path class="grid" d="{"".join(f"M{LEFT} {up(y):.1f}H{WIDE - RIGHT}" for y in marks)}"/>']
    parts += [text(LEFT - 6, up(y) + 4, f"{y:g}", ' text-anchor="end"') for y in marks]
    if logarithmic:
        powers = range(math.ceil(math.log10(ends[0]) - 1e-9), math.floor(math.log10(ends[1]) + 1e-9) + 1)
        places = [10.0**power for power in powers]
    else:
        places = ticks(*ends)
    parts.append(f'<path class="axis" d="M{LEFT} {base}H{WIDE - RIGHT}"/>')
    parts += [text(across(x), base + 16, f"{x:g}", ' text-anchor="middle"') for x in places]
    parts.append(text((LEFT + WIDE - RIGHT) / 2, HIGH - 6, picture["x"], ' text-anchor="middle"'))
    middle = (TOP + base) / 2
    turned = f' text-anchor="middle" transform="rotate(-90 11 {middle:.0f})"'
    return "".join([*parts, text(11, middle, picture["y"], turned)])


def _line(points: _Points, look: str, across: _Scale, up: _Scale) -> str:
    path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in sorted(points))
    dots = "".join(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.6"/>' for x, y in points[:60])
    return f'<g class="{look}"><path class="line" d="M{path}"/>{dots}</g>'


def _stairs(points: _Points, width: float, look: str, across: _Scale, up: _Scale, *, filled: bool) -> str:
    zero = up(0)
    steps = [f"M{across(min(x for x, _ in points)):.1f} {zero:.1f}"] if points else []
    for x, y in sorted(points):
        steps.append(f"L{across(x):.1f} {up(y):.1f}H{across(x + width):.1f}")
    path = "".join([*steps, f"V{zero:.1f}"]) if steps else ""
    return f'<g class="{look}"><path class="{"bar" if filled else "line"}" d="{path}"/></g>'


def _group(points: _Points, place: tuple[int, int, float], look: str, across: _Scale, up: _Scale) -> str:
    number, count, width = place
    each, parts = 0.8 * width / count, []
    for x, y in points:
        left, right = (across(x - 0.4 * width + shift * each) for shift in (number, number + 1))
        top, base = sorted((up(y), up(0)))
        size = f'width="{max(right - left - 1, 1):.1f}" height="{max(base - top, 0.5):.1f}"'
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size}/>')
    return f'<g class="{look} bars">{"".join(parts)}</g>'
