"""The page of a comparison: models side by side, from their record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.diagnose.verdict import UNKNOWN
from steepest.report import page, stretches, wording
from steepest.report.contract import Chart, Table
from steepest.report.drawing import Spec, chart
from steepest.report.wording import MISSING, NONE, count, interval, measured, percent, points, probability, short, size

PAGE = "comparison.html"
"""Its name in the folder of the comparison."""

COLOURS = 6
"""So many models have a colour of their own; beyond, dashes and shapes go on telling them apart."""

DASHES = ((1, 0), (6, 4), (2, 3), (9, 3, 2, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left")

NBSP = "\u00a0"

CHANCE = 0.05
"""An adjusted p below it is called more than chance."""


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a comparison, a pure function of what `steepest compare --json` prints.

    Like an audit's page it has no script, asks for nothing outside itself and escapes every name.
    """
    known = wording.plain(record)
    models = known["models"]
    names = [short(model["name"], 40) for model in models]
    template = page.environment().get_template("comparison.html.j2")
    return template.render(
        record=known,
        budget=wording.budget(known),
        names=names,
        warnings=warnings(known),
        said=[_said(pair, known) for pair in known["pairs"]],
        overview=_overview(models, known),
        curves=[found for found in (_curves(models, key) for key in ("best", "fgsm")) if found],
        pairs=_pairs(known),
        radii=_radii(known["pairs"]),
        gradients=_gradients(models),
        lines=_lines(models),
        bounds=stretches.bounds(models),
        unbounded=stretches.without(models),
        stretches=stretches.picture(models),
        layers=[
            (model, _layers(model), stretches.loose(model))
            for model in models
            if model["anatomy"]["layers"] or model["anatomy"]["ceilings"]["loose"]
        ],
        looks=[(DASHES[at % len(DASHES)], SHAPES[at % len(SHAPES)], at % COLOURS + 1) for at in range(len(models))],
        style=page.style("comparison.css"),
    )


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return what a person is told where there is no page: each pair, what is reached, what to know of the models."""
    return [
        *(_said(pair, record) for pair in record["pairs"]),
        *stretches.said(record["models"]),
        *warnings(record),
    ]


def warnings(record: Mapping[str, Any]) -> list[str]:
    """Return who could not be measured, and whose number cannot be believed."""
    found = [f"{each['name']} could not be measured: {each['error']}" for each in record["failed"]]
    unknown = [model["name"] for model in record["models"] if model["verdict"]["word"] == UNKNOWN]
    if unknown:
        found.append(f"{', '.join(unknown)}: not diagnosed, so nothing says whether the number can be believed.")
    for model in record["models"]:
        verdict = model["verdict"]
        if _doubted(verdict):
            reason = f": {verdict['reasons'][0]}" if verdict["reasons"] else ""
            found.append(
                f"The number of {model['name']} cannot be believed ({verdict['word']}){reason}. It may look robust "
                "because its attacks failed."
            )
        found += [f"{model['name']}: {sentence}" for sentence in wording.blind(model)]
    return found


def _said(pair: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return in one sentence what a pair's difference at the largest ε says, and what it does not."""
    found = pair["sizes"][-1]
    ahead, behind = (pair["first"], pair["second"])[:: 1 if found["difference"] >= 0 else -1]
    verdicts = {model["name"]: model["verdict"] for model in record["models"]}
    doubted = [f"{name} ({verdicts[name]['word']})" for name in (ahead, behind) if _doubted(verdicts[name])]
    holds = "seems to hold" if doubted else "holds"
    by = points(abs(found["difference"])).lstrip("+")
    gap = f"{ahead} {holds} {by} more than {behind}" if found["difference"] else f"{ahead} {holds} as many as {behind}"
    chance = "more than chance" if found["adjusted"] < CHANCE else "no more than chance would give"
    end = f"; the number of {' and that of '.join(doubted)} cannot be believed." if doubted else "."
    return f"{gap} at ε = {size(record['epsilon'])}, {chance} (p{NBSP}{_equals(found['adjusted'])}){end}"


def _doubted(verdict: Mapping[str, Any]) -> bool:
    """Whether a check says that the number cannot be believed; where none was asked, nothing says so."""
    return not verdict["believable"] and verdict["word"] != UNKNOWN


def _equals(p: float) -> str:
    text = probability(p)
    return (text if text.startswith("<") else f"= {text}").replace(" ", NBSP)


def _overview(models: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Table:
    sizes = [each["epsilon"] for each in models[0]["sizes"]]
    mended = any(model["mended"] for model in models)
    head = (
        "Model",
        "Clean accuracy",
        *(f"Robust at ε = {size(epsilon)}, at most" for epsilon in sizes),
        *(("As first measured",) if mended else ()),
        "Median smallest radius",
        "Verdict",
    )
    rows = [
        (
            short(model["name"], 40),
            percent(model["clean_accuracy"]),
            *(f"{percent(each['robust_accuracy'])} [{interval(each['robust_interval'])}]" for each in model["sizes"]),
            *((percent(model["mended"]["first"]["robust_accuracy"]) if model["mended"] else NONE,) if mended else ()),
            size(model["median_radius"]) if measured(model["median_radius"]) else f"above {size(record['epsilon'])}",
            model["verdict"]["word"],
        )
        for model in models
    ]
    return Table(caption=f"Models on the same {count(record['n'])} examples", head=head, rows=tuple(rows))


def _curves(models: Sequence[Mapping[str, Any]], key: str) -> Chart | None:
    """Return the accuracy of every model against ε: under FGSM, or under the best of everything tried."""
    rows = [
        {"epsilon": row["epsilon"], "accuracy": row[key], "model": str(at)}
        for at, model in enumerate(models)
        for row in model["curve"]
        if measured(row.get(key))
    ]
    if not rows:
        return None
    title = f"Accuracy against the size of the budget, for {'FGSM' if key == 'fgsm' else 'everything tried'}"
    grid = sorted({row["epsilon"] for row in rows})
    known = {(row["model"], row["epsilon"]): row["accuracy"] for row in rows}
    table = Table(
        caption="Accuracy at each ε",
        head=("ε", *(short(model["name"], 40) for model in models)),
        rows=tuple(
            (size(epsilon), *(percent(known.get((str(at), epsilon))) for at in range(len(models)))) for epsilon in grid
        ),
    )
    ends = (f"{model['name']} {percent(known.get((str(at), grid[-1])))}" for at, model in enumerate(models))
    story = f"At ε = {size(grid[-1])}: {', '.join(ends)}."
    return chart(f"curve-{key}", title, story, table, {"layer": _drawn(rows, len(models))}, (320, 280))


def _drawn(rows: list[Spec], models: int) -> list[Spec]:
    series = {"field": "model", "type": "nominal"}
    domain = [str(at) for at in range(models)]

    def told_apart(by: Sequence[Any]) -> Spec:
        return {**series, "scale": {"domain": domain, "range": [by[at % len(by)] for at in range(models)]}}

    share = {"labelExpr": "format(100 * datum.value, '.0f') + '\u00a0%'", "tickCount": 5}
    look = {
        "x": {"field": "epsilon", "type": "quantitative", "title": "ε (data units)", "axis": {"tickCount": 6}},
        "y": {
            "field": "accuracy",
            "type": "quantitative",
            "title": "accuracy",
            "scale": {"domain": [0, 1]},
            "axis": share,
        },
        "color": told_apart([f"var(--m{colour + 1})" for colour in range(COLOURS)]),
    }
    point = {"type": "point", "size": 44, "strokeWidth": 1.8, "fill": "var(--paper)", "opacity": 1}
    return [
        {
            "data": {"values": rows},
            "mark": {"type": "line", "strokeWidth": 2.2},
            "encoding": {**look, "strokeDash": told_apart(DASHES)},
        },
        {"data": {"values": rows}, "mark": point, "encoding": {**look, "shape": told_apart(SHAPES)}},
    ]


def _pairs(record: Mapping[str, Any]) -> list[Table]:
    """Return one table a question: clean, then every ε."""
    asked = [("Clean accuracy", [(pair, pair["clean"]) for pair in record["pairs"]])]
    for at, each in enumerate(record["models"][0]["sizes"]):
        asked.append(
            (f"Robust accuracy at ε = {size(each['epsilon'])}", [(pair, pair["sizes"][at]) for pair in record["pairs"]])
        )
    head = ("First − second", "Difference", "95 % interval", "Only the first right", "Only the second right", "p")
    adjusted = len(record["pairs"]) > 1
    return [
        Table(
            caption=caption,
            head=(*head, *(("p, for all pairs",) if adjusted else ())),
            rows=tuple(
                (
                    f"{short(pair['first'], 40)} − {short(pair['second'], 40)}",
                    points(found["difference"]),
                    _between(found["interval"]),
                    count(found["only_first"]),
                    count(found["only_second"]),
                    probability(found["p"]),
                    *((probability(found["adjusted"]),) if adjusted else ()),
                )
                for pair, found in rows
            ),
        )
        for caption, rows in asked
        if rows
    ]


def _radii(pairs: Sequence[Mapping[str, Any]]) -> Table | None:
    rows = [
        (
            f"{short(pair['first'], 40)} − {short(pair['second'], 40)}",
            *(size(pair["radius"][key]) if measured(pair["radius"][key]) else NONE for key in ("first", "second")),
            f"{pair['radius']['difference']:+.3g}" if measured(pair["radius"]["difference"]) else NONE,
            " to ".join(f"{end:+.3g}" for end in pair["radius"]["interval"] or ()) or NONE,
        )
        for pair in pairs
    ]
    head = ("First − second", "Median of the first", "Median of the second", "Difference", "95 % interval")
    return Table(caption="Median smallest radius found", head=head, rows=tuple(rows)) if rows else None


def _gradients(models: Sequence[Mapping[str, Any]]) -> Table:
    head = ("Model", "Objective", "Largest |gᵢ|", "First-order gain", "Exactly zero at")
    rows = [
        (short(model["name"], 40), each["objective"], *(_figure(each[key]) for key in ("size", "gain")), _zero(each))
        for model in models
        for each in model["anatomy"]["gradients"]
    ]
    return Table(caption="Gradients with respect to the input, medians over the examples", head=head, rows=tuple(rows))


def _zero(slope: Mapping[str, Any]) -> str:
    return percent(slope["zero"]) if measured(slope["zero"]) else MISSING


def _lines(models: Sequence[Mapping[str, Any]]) -> Table:
    head = (
        "Model",
        "Distance from linear",
        "Gain of FGSM, of the promised",
        "Layer that amplifies FGSM's direction most",
    )
    rows = [
        (
            short(model["name"], 40),
            *(_figure(model["anatomy"][key]) for key in ("curved", "kept")),
            short(model["anatomy"]["amplifier"] or NONE, 40),
        )
        for model in models
    ]
    return Table(caption="How straight the margin is", head=head, rows=tuple(rows))


def _layers(model: Mapping[str, Any]) -> Table:
    head = (
        "Layer",
        "Kind",
        "Units exactly flat",
        *(f"Stretch, {word}" for _, word in stretches.WAYS),
        "Stretch, at most",
        "Share of what amplifies, at most",
    )
    rows = [
        (
            short(layer["name"] or "the whole network", 40),
            layer["kind"],
            percent(layer["flat"]) if measured(layer["flat"]) else NONE,
            *(_times(layer[way]) for way, _ in stretches.WAYS),
            stretches.times(layer["norm"]),
            percent(layer["share"]) if measured(layer["share"]) else NONE,
        )
        for layer in model["anatomy"]["layers"]
    ]
    return Table(caption=f"The layers of {short(model['name'], 40)}, in order", head=head, rows=tuple(rows))


def _between(ends: Sequence[float]) -> str:
    low, high = (points(end) for end in ends)
    return f"{low.partition(NBSP)[0]} to {high}"


def _figure(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and measured(value) else MISSING


def _times(value: float | None) -> str:
    return f"× {value:.3g}" if value is not None and measured(value) else MISSING
