"""Write docs/zoo.md from what the zoo's tests measure; `python docs/make_zoo.py measure` measures it anew first."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the zoo is one of the tests

from tests.planted.zoo import HONEST, ZOO, base
from tests.planted.zoo.measured import audited, first, judged, of, reference

from steepest.diagnose.checks import CHECKS
from steepest.diagnose.contract import Level

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "zoo.md"
DATA = ROOT / "tests" / "planted" / "zoo" / "results.json"
EXAMPLES, HEALTHY, AUDITED, SEEDS = 32, 64, 100, 3

TEXT = """# The zoo: what each check sees

Networks made sick on purpose, each with a harmless control, and healthy ones; all small, on scans of digits. Every \
check is judged by them, and so is the mending. Written by `docs/make_zoo.py` from what the tests measure.

Each row is one network. *First* is the robust accuracy that somebody measures with one step of FGSM on the \
cross-entropy; *mended*, what the same audit says after its diagnosis; *in truth*, what it should have been: the \
number of the same network without the defence, or, where the defence has weights of its own, that of the preset \
`thorough`. A mended number may lie below: some defences make a network weaker. Where no gradient reaches the \
input, an audit searches through a surrogate from the beginning, so its first number is not high; what is NaN is never \
counted as robust.

"""


def measure() -> dict[str, Any]:
    """Return findings and numbers of all networks of the zoo."""
    return {"sick": {name: _sick(name) for name in ZOO}, "honest": _healthy()}


def _sick(name: str) -> dict[str, Any]:
    found = of(ZOO[name], EXAMPLES)
    return {"word": found.verdict.word, "flags": found.flags(), "numbers": _numbers(name)}


def _healthy() -> dict[str, Any]:
    ran, flags = 0, dict[str, dict[str, int]]()
    for honest in HONEST.values():
        for seed in range(SEEDS):
            found = judged(honest.make(seed), honest.epsilon, HEALTHY, seed=seed, dtype=honest.dtype)
            ran += sum(each.level is not Level.NOT_RUN for each in found.findings.values())
            for check, level in found.flags().items():
                flags.setdefault(check, {"warn": 0, "fail": 0})[level] += 1
    return {"networks": len(HONEST) * SEEDS, "ran": ran, "flags": flags}


def _numbers(name: str) -> dict[str, float] | None:
    defence = ZOO[name]
    if defence.group not in ("masking", "loss artefact", "overfitted"):
        return None
    run = audited(defence.make(base()), defence.epsilon, AUDITED, "fgsm")
    return {"first": first(run), "mended": run.robust_accuracy, "truth": reference(defence, AUDITED)}


def page() -> str:
    """Return the whole page."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    return TEXT + "\n\n".join([_numbers_table(data["sick"]), _checks_table(data), _defences_table()]) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *rows])


def _numbers_table(sick: dict[str, Any]) -> str:
    rows = [
        [name, found["word"], *(_percent(found["numbers"], column) for column in ("first", "mended", "truth"))]
        for name, found in sick.items()
    ]
    heads = ["network", "verdict", "first", "mended", "in truth"]
    return f"## Numbers\n\nOf {AUDITED} examples each.\n\n" + _table(heads, rows)


def _percent(numbers: dict[str, float] | None, column: str) -> str:
    return "–" if numbers is None else f"{100 * numbers[column]:.1f} %"


def _checks_table(data: dict[str, Any]) -> str:
    checks = [
        check for check in sorted(CHECKS.names()) if any(check in found["flags"] for found in data["sick"].values())
    ]
    quiet = [check for check in sorted(CHECKS.names()) if check not in checks]
    rows = [
        [
            name,
            *(found["flags"].get(check, "–").replace("fail", "**FAIL**").replace("warn", "WARN") for check in checks),
        ]
        for name, found in data["sick"].items()
    ]
    honest = data["honest"]
    rows.append(["the honest, together", *(_share(honest, check) for check in checks)])
    total = sum(each["warn"] for each in honest["flags"].values())
    failed = sum(each["fail"] for each in honest["flags"].values())
    return (
        f"## Checks\n\n{EXAMPLES} examples each, {HEALTHY} of the honest; 2 seconds for searches without gradients.\n\n"
        + _table(["network", *checks], rows)
        + f"\n\nThe honest are {honest['networks']} networks ({len(HONEST)} kinds, {SEEDS} seeds each): of "
        f"{honest['ran']:,} findings {failed} are a FAIL and {total} a WARN ({100 * total / honest['ran']:.1f} %). "
        + (f"Raised by no sick network: {', '.join(quiet)}." if quiet else "")
    )


def _share(honest: dict[str, Any], check: str) -> str:
    found = honest["flags"].get(check)
    if found is None:
        return "–"
    return ", ".join(f"{level.upper()} {count}" for level, count in found.items() if count)


def _defences_table() -> str:
    rows = [[name, each.what, each.remedy] for name, each in ZOO.items()]
    return "## What each is, and how it is measured\n\n" + _table(
        ["network", "what it does", "how to measure it"], rows
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        DATA.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
