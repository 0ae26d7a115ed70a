"""How far a change can travel by the weights, beside how far it was seen to travel: tables and one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from steepest.report.contract import Chart, Table
from steepest.report.drawing import Spec, chart
from steepest.report.wording import NONE, measured, percent, short

WAYS = (("fgsm", "FGSM"), ("pgd", "PGD"), ("random", "random"))

_LOOKS = {
    "random": ("circle", "var(--soft)"),
    "pgd": ("diamond", "var(--best)"),
    "fgsm": ("triangle-up", "var(--fgsm)"),
}


def times(value: float | None) -> str:
    """Return a stretch as text."""
    return f"× {value:.3g}" if value is not None and measured(value) else NONE


def bounds(models: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of what each network can do at most, and what was reached."""
    head = (
        "Model",
        "Product of norms",
        "ECLipsE",
        *(f"Reached along {word}" for _, word in WAYS),
        "FGSM, of the lower bound",
        "Step with the largest share",
    )
    rows = [
        (
            short(model["name"], 40),
            times(model["anatomy"]["ceilings"]["product"]),
            times(model["anatomy"]["ceilings"]["eclipse"]),
            *(times(model["anatomy"]["whole"][way]) for way, _ in WAYS),
            _kept(model["anatomy"]),
            short(model["anatomy"]["ceilings"]["amplifier"] or NONE, 40),
        )
        for model in models
    ]
    return Table(
        caption="Lipschitz bounds of the whole network in L2, and what was reached", head=head, rows=tuple(rows)
    )


def said(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each model what FGSM reached of what is possible, and which step makes that large."""
    found = []
    for model in models:
        anatomy = model["anatomy"]
        ceilings, reached, best = anatomy["ceilings"], anatomy["whole"]["fgsm"], _best(anatomy)
        if best is None or not measured(reached):
            continue
        most = f", most of it in {short(ceilings['amplifier'], 40)}" if ceilings["amplifier"] else ""
        found.append(
            f"{short(model['name'], 40)} stretches FGSM's change {times(reached)}, any at most {times(best)}{most}."
        )
    return found


def without(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which models have no bound, and why."""
    found = [(model["name"], model["anatomy"]["ceilings"]["reason"]) for model in models]
    return [f"{short(name, 40)} has no bound: {reason}" for name, reason in found if reason]


def loose(model: Mapping[str, Any]) -> Table | None:
    """Return the amplifying steps of a trace that belong to no layer, or None where there are none."""
    steps = model["anatomy"]["ceilings"]["loose"]
    rows = tuple((short(step["name"], 40), step["op"], times(step["own"]), percent(step["share"])) for step in steps)
    caption = f"What amplifies in {short(model['name'], 40)} outside of its layers, by its trace"
    head = ("Step", "Operation", "Norm, at most", "Share of what amplifies")
    return Table(caption=caption, head=head, rows=rows) if rows else None


def picture(models: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Return the bounds and what was reached on one axis, or None where no model has both."""
    names = [short(model["name"], 18) for model in models]
    if len(set(names)) < len(names):  # shortened to the same
        names = [f"{at} {name}" for at, name in enumerate(names, 1)]
    rows = [row for name, model in zip(names, models, strict=True) for row in _marks(name, model["anatomy"])]
    if not {"bound", "fgsm"} <= {row["kind"] for row in rows}:
        return None
    title = "How far each network stretches a change: reached, and at most"
    table = bounds(models)
    known = [(model["name"], _kept(model["anatomy"])) for model in models if _kept(model["anatomy"]) != NONE]
    story = "; ".join(f"FGSM reaches {kept} of the bound of {short(name, 40)}" for name, kept in known) + "."
    spec = {"data": {"values": rows}, "layer": _layers(rows)}
    height = 60 + 34 * len(models)
    return chart("stretches", title, story, table, spec, (height, height))


def _marks(name: str, anatomy: Mapping[str, Any]) -> list[Spec]:
    """Return one row for every number of a model that is positive: a logarithmic axis has no 0."""
    found: list[tuple[str, Any]] = [(way, anatomy["whole"][way]) for way, _ in WAYS]
    found += [("bound", anatomy["ceilings"][key]) for key in ("eclipse", "product")]
    return [
        {"model": name, "kind": kind, "value": value} for kind, value in found if measured(value) and (value or 0) > 0
    ]


def _ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers on a logarithmic axis that holds the values, few enough to be read."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    stride = -(-(high - low) // 6) or 1
    return [step * 10.0**power for power in range(low, high + 1, stride) for step in steps]


def _layers(rows: Sequence[Spec]) -> list[Spec]:
    room = 9 * max(len(row["model"]) for row in rows)
    x = {
        "field": "value",
        "type": "quantitative",
        "title": "change of the outputs over that of the input (L2)",
        "scale": {"type": "log"},
        "axis": {"values": _ticks([row["value"] for row in rows]), "labelExpr": "format(datum.value, '~g')"},
    }
    y = {"field": "model", "type": "nominal", "sort": None, "title": None, "axis": {"grid": True, "minExtent": room}}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.kind == 'bound'"}],
            "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2.2, "size": 18},
            "encoding": {"x": x, "y": y},
        }
    ]
    for kind, (shape, colour) in _LOOKS.items():
        point = {
            "type": "point",
            "shape": shape,
            "size": 70,
            "stroke": colour,
            "fill": "var(--paper)",
            "strokeWidth": 1.8,
        }
        layers.append(
            {
                "transform": [{"filter": f"datum.kind == '{kind}'"}],
                "mark": {**point, "opacity": 1},
                "encoding": {"x": x, "y": y},
            }
        )
    return layers


def _kept(anatomy: Mapping[str, Any]) -> str:
    """Return what share of the lower bound FGSM reaches."""
    best, reached = _best(anatomy), anatomy["whole"]["fgsm"]
    return percent(reached / best) if best is not None and best > 0 and measured(reached) else NONE


def _best(anatomy: Mapping[str, Any]) -> float | None:
    """Return the lower of the bounds."""
    known = [anatomy["ceilings"][key] for key in ("product", "eclipse")]
    return min((float(bound) for bound in known if measured(bound)), default=None)
