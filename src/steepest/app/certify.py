"""`steepest certify`: proven sizes, the smallest ones that break, and the bracket between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steepest.app import audit, console, exports
from steepest.app.config import command_line, resolve
from steepest.app.gate import parse_gates
from steepest.audit.places import Place
from steepest.report.run import report
from steepest.report.wording import MISSING, bracket, budget, certified, count, duration, percent, ratios, size, vacuous

_ASKED = {"preset": "quick", "diagnose": False}
"""What stands on the other side: a short ladder, whose number nobody is asked to believe."""

_METHOD = "crown"


def run(given: Mapping[str, Any], *, as_json: bool, outputs: Sequence[str]) -> None:
    """Certify and attack, write the page, print the result, and judge the gates; raises as `st.audit`.

    Raises:
        NoCertificateError: none of the certifiers has rules for the model.
    """
    with console.Terminal() as terminal:
        settings, notes = resolve(given, remedy="write `steepest certify MODEL DATA --budget linf:8/255`")
        for note in notes:
            terminal.say(note)
        gates = parse_gates(settings.gate)
        targets = exports.checked(outputs, audit.ENDINGS)
        command = command_line(["certify"], settings)
        asked = settings.model_copy(update={**_ASKED, "method": settings.method or _METHOD})
        found = audit.audited(asked, command, terminal)
    claims = [gate.claim(found.summary) for gate in gates]
    page = report(found)
    audit.export(found, targets, claims)
    if as_json:
        console.show_json(found.summary)
    else:
        show(found.summary, [page, *targets])
    audit.judge(claims, found.summary, terminal)


def show(summary: Mapping[str, Any], written: Sequence[Place]) -> None:
    """Print what each certifier proved, both accuracies at every ε, the bracket, and where the page is."""
    rows = [
        (each["name"], count(each["entered"]), count(each["certified"]), duration(each["seconds"]))
        for each in summary["certifiers"]
    ]
    console.show_table(("method", "entered", "certified", "seconds"), rows)
    console.say()
    for each in summary["sizes"]:
        console.say(
            f"certified accuracy at least {percent(each['certified_accuracy'])}, robust at most "
            f"{percent(each['robust_accuracy'])} of N={summary['n']} under {budget({**summary, **each})}, "
            f"clean {percent(summary['clean_accuracy'])}"
        )
    for sentence in filter(None, (certified(summary), bracket(summary), ratios(summary), *vacuous(summary))):
        console.say(sentence)
    most = summary["largest_proven"]
    console.say(f"largest size proven of any example: {size(most) if most else MISSING}")
    for path in written:
        console.say(str(path))
