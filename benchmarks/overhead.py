"""Every catalogued attack against the passes that it makes: what the search costs beside the network."""

from __future__ import annotations

from tests.conformance.table import ROWS
from tests.tables import budgets
from torch import Tensor, nn

from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.passes import TINY, forward, input_gradient
from benchmarks.timing import in_turns, rounds_of
from steepest.attacks.api import pose
from steepest.attacks.contract import Problem
from steepest.attacks.recipes import ATTACKS

CALLS = {
    "noise": "noise(points=20)",
    "square": "square(queries=40)",
    "simba": "simba(queries=40)",
    "rays": "rays(queries=40)",
    "universal": "universal(steps=5)",
}
"""Calls long enough for the search to be measured; the others are asked as their row of the conformance table says."""

PROMISED = ("fgsm", "r-fgsm", "bim", "pgd", "mi-fgsm", "ni-fgsm", "apgd", "frank-wolfe", "md", "odi")
"""Gradient searches in L∞: promised on the small network too; the others are measured there and shown."""


def overhead(effort: float = 1.0) -> Result:
    """Time of each attack over (forwards × F + backwards × B), F and B timed in the same run."""
    return Result(
        title="Every attack against its counted passes",
        note="Wall time of `recipe.run` over the time of the passes it counted: F is a forward without gradient, B is "
        "what an input-gradient takes beyond F, both plain PyTorch in the same run, parameters frozen. ε is 1e-6 of "
        "the row's budget, so that nothing is broken and no example leaves. Several points per example are asked as "
        "one larger batch, which can be faster per point than the F it is compared with. Images are 32×32 or 28×28.",
        rows=tuple(row for case in CASES for row in _rows(case, effort)),
    )


def _rows(case: Case, effort: float) -> list[Row]:
    net, x, y = case.made()
    first = case is CASES[0]
    rounds = rounds_of(3 if first else 15, effort)
    rows = []
    for name in (entry for entry in ATTACKS.names() if entry != "autoattack"):  # its parts are measured
        attack, problem = ATTACKS.build(CALLS.get(name, ROWS[name].call)), _posed(name, net, x, y)
        counts = attack.run(problem)
        forwards, backwards = float(counts.forwards.double().mean()), float(counts.backwards.double().mean())
        times = in_turns(
            {
                name: lambda attack=attack, problem=problem: attack.run(problem),
                "F": lambda: forward(net, x),
                "G": lambda: input_gradient(net, x, y),
            },
            rounds,
        )
        pairs = zip(times.seconds[name], times.seconds["F"], times.seconds["G"], strict=True)
        ratios = sorted(took / (forwards * f + backwards * max(g - f, 0.0)) for took, f, g in pairs)
        target = case.target if first or name in PROMISED else None
        rows.append(
            Row(
                what=f"{attack.call.partition('(')[0]}, {case.name}",
                against=f"{forwards:.0f} F + {backwards:.0f} B",
                value=ratios[len(ratios) // 2],
                target=target,
                spread=(ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
            )
        )
    return rows


def _posed(name: str, net: nn.Module, x: Tensor, y: Tensor) -> Problem:
    shape = tuple(x.shape[1:])
    return pose(net, x, y, budgets(shape, TINY)[ROWS[name].budget])
