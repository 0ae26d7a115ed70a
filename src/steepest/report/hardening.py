"""The page of a hardening: from its record to the training's course, what was seen, and the audit at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.report import findings, page, plots, wording
from steepest.report.contract import Chart, Plot, Table
from steepest.report.drawing import Spec, chart
from steepest.report.wording import MISSING, NONE, count, duration, interval, measured, percent, short, size

PAGE = "report.html"
"""Its name in the folder of the training."""

HELD, CLEAN, TRAINING = "held out, robust", "held out, clean", "at the training points"
COLOURS = ("var(--best)", "var(--fgsm)", "var(--s2)", "var(--s3)")
DASHES = ((1, 0), (7, 4), (2, 3), (9, 3, 2, 3))
"""Those of the page's keys."""

_ROWS = 200
_SHARE = {"labelExpr": "format(100 * datum.value, '.0f') + '\u00a0%'", "tickCount": 5}

_SKIPPED = ("budget", "data", "layers", "steepest", "box", "every", "devices")
_OFF = ("None", "False", "none")
"""How what was not asked for is written down."""


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a hardening, a pure function of what `steepest harden --json` prints.

    Like an audit's page it has no script, asks for nothing outside itself and escapes every name.
    """
    known = wording.plain(record)
    after, before, training = known["audit"], known["start"], known["training"]
    return (
        page.environment()
        .get_template("hardening.html.j2")
        .render(
            record=known,
            training=training,
            after=after,
            before=before,
            name=short(known["model"], 60),
            method=short(training["method"].partition("(")[0], 40),
            budget=wording.budget(after),
            certified=wording.certified(after),
            assured=wording.assured(after),
            warnings=warnings(known),
            head=findings.headline(after),
            course=_course(training),
            series=(HELD, CLEAN, TRAINING) if _measured(training) else (TRAINING,),
            seen=_seen(training["seen"]),
            bias=_curves(training),
            compared=_compared(after, before, _start(known)),
            curve=_against(after, before, _start(known)),
            start=_start(known),
            asked=[*_asked(known), *(("note", note) for note in known["notes"])],
            spent=_spent(training),
            style=page.style(),
        )
    )


def sentences(record: Mapping[str, Any]) -> list[str]:
    """Return what a person is told where there is no page: the training, what was seen, then the audit."""
    training, after, before = record["training"], record["audit"], record["start"]
    best = next((each for each in training["epochs"] if each["epoch"] == training["best_epoch"]), None)
    held = "" if best is None or best["held"] is None else f", {percent(best['held']['robust'])} robust held out"
    done = len(training["epochs"])
    kept = f"; the weights are those after epoch {training['best_epoch'] + 1}{held}" if done else ""
    found = [f"{training['method']}: {done} {'epoch' if done == 1 else 'epochs'}{kept}"]
    found += [f"{each['name']}: {each['says']}; {each['done']}" for each in training["seen"]]
    low, high = after["robust_interval"]
    bound = " at most" if wording.at_most(after) else ""
    found.append(
        f"robust accuracy{bound} {percent(after['robust_accuracy'])} [{100 * low:.1f}, {100 * high:.1f}] of "
        f"N={after['n']} under {wording.budget(after)}, clean {percent(after['clean_accuracy'])}; before "
        f"({_start(record)}) {percent(before['robust_accuracy'])}, clean {percent(before['clean_accuracy'])}"
    )
    return [*found, *(each for each in (wording.certified(after), *warnings(record)) if each)]


def warnings(record: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before the numbers."""
    training, found = record["training"], []
    if training["stopped"]:
        found.append(f"Training ended early: {training['stopped']}.")
    if training["best_epoch"] < 0:
        found.append("No epoch was finished: these are the weights that training began with.")
    elif not training["held_out"]:
        found.append("Nothing was held out, so the weights are the last ones, not the most robust ones.")
    return [*found, *wording.blind(record["audit"])]


def _start(record: Mapping[str, Any]) -> str:
    return "the weights it began with" if record["start_trained"] else "the untrained start"


def _asked(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(key, value) for key, value in record["asked"].items() if key not in _SKIPPED and value not in _OFF]
    return [(key.replace("_", " "), value) for key, value in rows]


def _measured(training: Mapping[str, Any]) -> bool:
    return any(each["held"] is not None for each in training["epochs"])


def _course(training: Mapping[str, Any]) -> Chart | None:
    """Accuracies after each epoch, with the best one and every sign as upright lines."""
    epochs = training["epochs"]
    if not epochs:
        return None
    rows, known = [], []
    for each in epochs:
        held = each["held"] or {}
        values = {HELD: held.get("robust"), CLEAN: held.get("clean"), TRAINING: each["robust"]}
        rows += [_row(each["epoch"] + 1, share, name) for name, share in values.items() if measured(share)]
        known.append((each, values))
    table = Table(
        caption="After each epoch" if len(known) <= _ROWS else f"After the last {_ROWS} epochs",
        head=("Epoch", "Held out, robust", "Held out, clean", "At the training points", "Loss", "Rate", "Method"),
        rows=tuple(
            (
                count(each["epoch"] + 1),
                *(percent(values[name]) for name in (HELD, CLEAN, TRAINING)),
                f"{each['loss']:.4g}",
                f"{each['lr']:.3g}",
                short(each["method"].partition("(")[0], 24),
            )
            for each, values in known[-_ROWS:]
        ),
    )
    at, last = known[-1]
    ends = ", ".join(f"{name} {percent(share)}" for name, share in last.items() if measured(share))
    story = f"After epoch {at['epoch'] + 1}: {ends}."
    layers = [*_drawn(rows, "after epoch", (HELD, CLEAN, TRAINING)), *_rules(training)]
    return chart("course", "Accuracy after each epoch", story, table, {"layer": layers}, (340, 300))


def _row(x: float, y: float, series: str) -> Spec:
    return {"x": x, "y": y, "series": series}


def _drawn(rows: list[Spec], across: str, names: Sequence[str]) -> list[Spec]:
    series = {"field": "series", "type": "nominal"}

    def told_apart(by: Sequence[Any]) -> Spec:
        return {**series, "scale": {"domain": list(names), "range": list(by[: len(names)])}}

    look = {
        "x": {"field": "x", "type": "quantitative", "title": across, "axis": {"tickCount": 6}},
        "y": {
            "field": "y",
            "type": "quantitative",
            "title": "accuracy",
            "scale": {"domain": [0, 1]},
            "axis": _SHARE,
        },
        "color": told_apart(COLOURS),
        "strokeDash": told_apart([list(dash) for dash in DASHES]),
    }
    lines = {"type": "line", "strokeWidth": 2.2}
    dots = {"type": "point", "size": 26, "strokeWidth": 1.6, "fill": "var(--paper)", "opacity": 1}
    bare = {key: value for key, value in look.items() if key != "strokeDash"}
    few = len(rows) <= 40 * len(names)
    return [
        {"data": {"values": rows}, "mark": lines, "encoding": look},
        *([{"data": {"values": rows}, "mark": dots, "encoding": bare}] if few else []),
    ]


def _rules(training: Mapping[str, Any]) -> list[Spec]:
    per_epoch = training["epochs"][0]["steps"] / (training["epochs"][0]["epoch"] + 1)
    marks = [{"x": (each["step"] + 1) / per_epoch, "text": short(each["name"], 18)} for each in training["seen"]]
    if training["best_epoch"] >= 0:
        marks.append({"x": training["best_epoch"] + 1, "text": "kept"})
    end = training["epochs"][-1]["epoch"] + 1
    found: list[Spec] = []
    for mark in marks:
        at = {"field": "x", "type": "quantitative"}
        late = mark["x"] > 0.7 * end
        rule = {"type": "rule", "color": "var(--soft)", "strokeDash": [2, 3], "strokeWidth": 1.2}
        text = {"type": "text", "y": -9, "align": "right" if late else "left", "dx": 4 if late else -4, "fontSize": 12}
        data = {"values": [mark]}
        found.append({"data": data, "mark": rule, "encoding": {"x": at}})
        words = {"x": at, "text": {"field": "text", "type": "nominal"}}
        found.append({"data": data, "mark": {**text, "color": "var(--soft)"}, "encoding": words})
    return found


def _seen(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    shown = rows[:_ROWS]
    return (
        Table(
            caption="In the order in which it was seen" if len(rows) <= _ROWS else f"The first {_ROWS} of {len(rows)}",
            head=("Sign", "Epoch", "Step", "What was seen, and what was done"),
            rows=tuple(
                (each["name"], count(each["epoch"] + 1), count(each["step"] + 1), f"{each['says']}; {each['done']}")
                for each in shown
            ),
        )
        if rows
        else None
    )


def _curves(training: Mapping[str, Any]) -> list[Plot]:
    """One small plot for each number that was measured after epochs."""
    epochs = [each for each in training["epochs"] if each["numbers"]]
    names = dict.fromkeys(name for each in epochs for name in each["numbers"])
    found = []
    for place, name in enumerate(names):
        held = [(each["epoch"] + 1, each["numbers"].get(name)) for each in epochs]
        series = {"name": name, "x": [x for x, _ in held], "y": [y for _, y in held]}
        picture = {"kind": "lines", "title": name, "x": "after epoch", "y": name, "series": [series]}
        found.append(plots.plot(picture, f"number-{place}"))
    return [each for each in found if each is not None]


def _compared(after: Mapping[str, Any], before: Mapping[str, Any], start: str) -> Table:
    """What the audit says of the start and of the hardened weights, on the same examples, at each ε."""
    certify = after["certified_count"] is not None or before["certified_count"] is not None
    rows = []
    for name, summary in ((start, before), ("hardened", after)):
        for at, each in enumerate(summary["sizes"]):
            proven = summary["certified_accuracy"] if at == len(summary["sizes"]) - 1 else None
            rows.append(
                (
                    name,
                    size(each["epsilon"]),
                    percent(summary["clean_accuracy"]),
                    *((percent(proven) if measured(proven) else NONE,) if certify else ()),
                    percent(each["robust_accuracy"]),
                    interval(each["robust_interval"]),
                    summary["verdict"]["word"],
                )
            )
    proven = ("Proven robust, at least",) if certify else ()
    head = ("Weights", "ε", "Clean accuracy", *proven, "Robust accuracy, at most", "95 % interval", "Verdict")
    return Table(caption=f"On the same {count(after['n'])} examples", head=head, rows=tuple(rows))


def _against(after: Mapping[str, Any], before: Mapping[str, Any], start: str) -> Chart | None:
    names = ("hardened", start)
    known = {
        name: {row["epsilon"]: row["best"] for row in summary["curve"] if measured(row["best"])}
        for name, summary in zip(names, (after, before), strict=True)
    }
    grid = sorted({epsilon for held in known.values() for epsilon in held})
    if not grid:
        return None
    rows = [_row(epsilon, share, name) for name, held in known.items() for epsilon, share in held.items()]
    table = Table(
        caption="Accuracy at each ε",
        head=("ε", *names),
        rows=tuple((size(at), *(percent(known[name].get(at)) for name in names)) for at in grid),
    )
    ends = ", ".join(f"{name} {percent(known[name].get(grid[-1]))}" for name in names)
    story = f"At ε = {size(grid[-1])}: {ends}."
    layers = _drawn(rows, "ε (data units)", names)
    return chart("against", "Accuracy against the size of the budget", story, table, {"layer": layers}, (320, 280))


def _spent(training: Mapping[str, Any]) -> str:
    epochs = training["epochs"]
    if not epochs:
        return MISSING
    forwards, backwards = (sum(each[key] for each in epochs) for key in ("forwards", "backwards"))
    seconds = sum(each["seconds"] for each in epochs)
    return f"{count(forwards)} forwards and {count(backwards)} backwards of a batch, {duration(seconds)}"
