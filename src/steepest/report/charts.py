"""The report's charts: from the summary to Vega-Lite specifications, each with the table of the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steepest.basis.shares import interval as clopper_pearson
from steepest.report.contract import Chart, Table
from steepest.report.drawing import Spec, chart
from steepest.report.wording import count, interval, measured, percent, short, size

WORST = 20
FGSM, BEST, CERTIFIED = "FGSM", "best", "certified"

_PERCENT = {"labelExpr": "format(100 * datum.value, '.0f') + '\u00a0%'", "tickCount": 5}


def curve(summary: Mapping[str, Any]) -> Chart | None:
    """Return accuracy against ε for FGSM, for the best of everything tried and what is proven, or None without a curve.

    Each line has its 95 % interval (Clopper-Pearson) at every ε as a band; the intervals hold one by one.
    """
    rows = sorted(summary.get("curve") or [], key=lambda row: row["epsilon"])
    if not rows:
        return None
    clean, n = summary["clean_accuracy"], summary["n"]
    if rows[0]["epsilon"] > 0:
        rows = [{"epsilon": 0.0, "fgsm": clean, "best": clean}, *rows]
    proven = any(measured(row.get("certified")) for row in rows)
    title = "Accuracy against the size of the budget, for FGSM and for the best of everything tried"
    title += ", and what is proven" if proven else ""
    table = Table(
        caption="Accuracy at each ε",
        head=("ε", "FGSM", "95 % interval", "Best of everything tried", "95 % interval", *(["Proven"] * proven)),
        rows=tuple(
            (
                size(r["epsilon"]),
                *_banded(r.get("fgsm"), n),
                *_banded(r.get("best"), n),
                *([percent(r.get("certified"))] * proven),
            )
            for r in rows
        ),
    )
    long = [
        {
            "epsilon": row["epsilon"],
            "accuracy": row[key],
            "series": name,
            **(_band(row[key], n) if name != CERTIFIED else {}),
        }
        for key, name in (("best", BEST), ("fgsm", FGSM), ("certified", CERTIFIED))
        for row in rows
        if measured(row.get(key))
    ]
    last = next((row for row in reversed(rows) if measured(row.get("best"))), rows[-1])
    story = f"From {percent(clean)} without any change to {percent(last.get('best'))} at ε = {size(last['epsilon'])}."
    if proven:
        story += f" Proven at the budget: {percent(summary.get('certified_accuracy'))}."
    layers = [*_lines(long), *_marker(summary.get("epsilon"), rows[-1]["epsilon"])]
    return chart("curve", title, story, table, {"layer": layers}, (340, 300))


def _band(share: float | None, n: int) -> dict[str, float]:
    if share is None or not measured(share):
        return {}
    low, high = clopper_pearson(round(share * n), n)
    return {"low": low, "high": high}


def _banded(share: float | None, n: int) -> tuple[str, str]:
    return percent(share), interval(tuple(_band(share, n).values()))


def _lines(rows: list[Spec]) -> list[Spec]:
    scale = {"domain": [BEST, FGSM, CERTIFIED]}
    series = {"field": "series", "type": "nominal"}
    look = {
        "x": {
            "field": "epsilon",
            "type": "quantitative",
            "title": "ε (data units)",
            "axis": {"tickCount": 6},
        },
        "y": {
            "field": "accuracy",
            "type": "quantitative",
            "title": "accuracy",
            "scale": {"domain": [0, 1]},
            "axis": _PERCENT,
        },
        "color": {**series, "scale": {**scale, "range": ["var(--best)", "var(--fgsm)", "var(--good)"]}},
    }
    dash = {**series, "scale": {**scale, "range": [[1, 0], [6, 4], [2, 3]]}}
    shape = {**series, "scale": {**scale, "range": ["circle", "square", "triangle-up"]}}
    band = {**look, "y": {**look["y"], "field": "low"}, "y2": {"field": "high"}}
    return [
        {
            "data": {"values": [row for row in rows if "low" in row]},
            "mark": {"type": "area", "opacity": 0.16},
            "encoding": band,
        },
        {
            "data": {"values": rows},
            "mark": {"type": "line", "strokeWidth": 2.2},
            "encoding": {**look, "strokeDash": dash},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "point", "size": 44, "strokeWidth": 1.8, "fill": "var(--paper)", "opacity": 1},
            "encoding": {**look, "shape": shape},
        },
    ]


def _marker(epsilon: float | None, end: float) -> list[Spec]:
    """A dashed line where the audited budget ends, named."""
    if epsilon is None or not measured(epsilon) or end <= 0 or epsilon > end:
        return []
    data = {"values": [{"epsilon": epsilon, "text": f"budget {size(epsilon)}"}]}
    at = {"field": "epsilon", "type": "quantitative"}
    late = epsilon > 0.7 * end
    rule = {"type": "rule", "color": "var(--soft)", "strokeDash": [2, 3], "strokeWidth": 1.2}
    text = {
        "type": "text",
        "y": -9,
        "align": "right" if late else "left",
        "dx": 4 if late else -4,
        "fontSize": 12,
    }
    return [
        {"data": data, "mark": rule, "encoding": {"x": at}},
        {
            "data": data,
            "mark": {**text, "color": "var(--soft)"},
            "encoding": {"x": at, "text": {"field": "text", "type": "nominal"}},
        },
    ]


def worst_first(per_class: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the classes with the lowest robust accuracy first; those not measured come last."""

    def rank(row: Mapping[str, Any]) -> tuple[bool, float, float]:
        robust, clean = row.get("robust_accuracy"), row.get("clean_accuracy")
        return not measured(robust), robust or 0.0, clean or 0.0

    return sorted(per_class, key=rank)


def classes(summary: Mapping[str, Any], limit: int) -> Chart | None:
    """Return robust accuracy per class with its interval: the worst 20 drawn, the worst `limit` in the table."""
    rows = worst_first(summary.get("per_class") or [])
    if not rows:
        return None
    table = Table(
        caption="Every class, the least robust first" if len(rows) <= limit else f"The {limit} least robust classes",
        head=("Class", "Examples", "Clean accuracy", "Robust accuracy at most", "95 % interval"),
        rows=tuple(_class_row(row) for row in rows[:limit]),
    )
    drawn = [row for row in rows[:WORST] if measured(row.get("robust_accuracy"))]
    values = []
    for row, name in zip(drawn, _distinct(drawn), strict=True):
        low, high = row.get("robust_interval") or (None, None)
        numbers = {
            "robust": row["robust_accuracy"],
            "clean": row.get("clean_accuracy"),
            "low": low,
            "high": high,
        }
        values.append({"name": name, **numbers})
    title = (
        "Robust accuracy per class" if len(rows) <= WORST else f"Robust accuracy of the {WORST} least robust classes"
    )
    story = f"Lowest: {values[0]['name']} at {percent(values[0]['robust'])}." if values else "Not measured."
    tall = 25 * len(values) + 55
    return chart("classes", title, story, table, _bars(values), (tall, tall))


def _class_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    robust = percent(row.get("robust_accuracy"))
    return (
        short(row.get("name", row.get("label"))),
        count(row.get("n")),
        percent(row.get("clean_accuracy")),
        robust,
        interval(row.get("robust_interval")),
    )


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names, told apart by their label where two are equal: equal names would share one bar."""
    names = [short(row.get("name", row.get("label")), 24) for row in rows]
    return [
        name if names.count(name) == 1 else f"{short(name, 16)} ({row.get('label')})"
        for name, row in zip(names, rows, strict=True)
    ]


def _bars(values: list[Spec]) -> Spec:
    share = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    axis = {"title": "accuracy", "axis": _PERCENT}
    room = min(170, max((8 * len(row["name"]) for row in values), default=0))  # wide enough in any system font
    names = {"ticks": False, "domain": False, "labelColor": "var(--ink)", "minExtent": room}
    name = {"field": "name", "type": "nominal", "sort": None, "title": None}
    return {
        "data": {"values": values},
        "encoding": {"y": {**name, "axis": names}},
        "layer": [
            {
                "mark": {"type": "bar", "height": 13, "color": "var(--bar)"},
                "encoding": {"x": {**share, **axis, "field": "robust"}},
            },
            {
                "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1.3},
                "encoding": {"x": {**share, **axis, "field": "low"}, "x2": {"field": "high"}},
            },
            *(
                {
                    "mark": {"type": "tick", "color": "var(--ink)", "thickness": 1.3, "size": 7},
                    "encoding": {"x": {**share, **axis, "field": end}},
                }
                for end in ("low", "high")
            ),
            {
                "mark": {
                    "type": "point",
                    "shape": "diamond",
                    "size": 58,
                    "stroke": "var(--fgsm)",
                    "fill": "var(--paper)",
                    "strokeWidth": 1.7,
                    "opacity": 1,
                },
                "encoding": {"x": {**share, **axis, "field": "clean"}},
            },
        ],
    }


def radii(summary: Mapping[str, Any]) -> Chart | None:
    """Return the histogram of the smallest radius found per example, or None where no radii are recorded."""
    found = (summary.get("radius") or {}).get("values") or []
    values = np.array([value for value in found if measured(value)], dtype=float)
    if not values.size:
        return None
    epsilon = summary.get("epsilon")
    end = max(float(values.max()), epsilon if epsilon is not None and measured(epsilon) else 0.0) or 1.0
    numbers, edges = np.histogram(values, bins=min(24, max(6, int(np.sqrt(values.size)))), range=(0.0, end))
    bins = [
        {"low": float(low), "high": float(high), "count": int(number)}
        for low, high, number in zip(edges[:-1], edges[1:], numbers, strict=True)
    ]
    table = Table(
        caption="Examples per range of the smallest radius found",
        head=("Radius from", "to", "Examples"),
        rows=tuple((f"{b['low']:.4g}", f"{b['high']:.4g}", count(b["count"])) for b in bins),
    )
    bars = {
        "data": {"values": bins},
        "mark": {"type": "bar", "color": "var(--bar)"},
        "encoding": {
            "x": {
                "field": "low",
                "bin": "binned",
                "type": "quantitative",
                "title": "smallest radius found (data units)",
                "axis": {"tickCount": 6, "grid": False},
            },
            "x2": {"field": "high"},
            "y": {"field": "count", "type": "quantitative", "title": "examples", "axis": {"tickCount": 4}},
        },
    }
    story = f"{count(values.size)} examples, median {size(float(np.median(values)))}."
    title = "How small a change was enough"
    return chart("radii", title, story, table, {"layer": [bars, *_marker(epsilon, end)]}, (260, 240))
