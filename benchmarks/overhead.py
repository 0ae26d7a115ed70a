"""Every catalogued attack against the passes that it makes: what the search costs beside the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tests.conformance.table import ROWS
from tests.tables import budgets
from torch import Tensor, nn

from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.passes import TINY, forward, input_gradient
from benchmarks.timing import rounds_of
from steepest.attacks.api import pose
from steepest.attacks.contract import Problem
from steepest.attacks.recipes import ATTACKS

CALLS = {
    "noise": "noise(points=20)",
    "square": "square(queries=40)",
    "simba": "simba(queries=40)",
    "rays": "rays(queries=40)",
    "universal": "universal(steps=5)",
    "hopskipjump": "hopskipjump(queries=60, points=6, starts=12)",
    "boundary": "boundary(queries=40, starts=8)",
    "spatial": "spatial(angles=3, shifts=1)",
    "deepfool": "deepfool(steps=2)",
    "fab": "fab(steps=3, targets=2)",
}
"""Calls long enough for the search to be measured; the others are asked as their row of the conformance table says."""

PROMISED = ("fgsm", "r-fgsm", "bim", "pgd", "mi-fgsm", "ni-fgsm", "apgd", "frank-wolfe", "md", "odi")
"""Gradient searches in L∞: promised on the small network too; the others are measured there and shown."""


def overhead(effort: float = 1.0) -> Result:
    """Time of each attack over (forwards × F + backwards × B), F and B timed in the same run."""
    large, small = replace(CASES[0], name="ResNet-18, batch 4", batch=(4, 3, 32, 32)), CASES[1]
    return Result(
        title="Every attack against its counted passes",
        note="Wall time of `recipe.run` over the time of the passes it counted: F is a forward without gradient, B is "
        "what an input-gradient takes beyond F, both plain PyTorch just before and after, parameters frozen. ε is "
        "1e-6, so that nothing is broken and no example leaves. Several points per example are asked as one larger "
        "batch, which can be faster per point than the F it is compared with. `autoattack` is the sum of its parts.",
        rows=(*_rows(large, effort, rounds_of(3, effort)), *_rows(small, effort, rounds_of(9, effort))),
    )


def _rows(case: Case, effort: float, rounds: int) -> list[Row]:
    net, x, y = case.made()
    small = case is CASES[1]
    rows = []
    for name in ATTACKS.names():
        if name == "autoattack":
            continue
        attack, problem = ATTACKS.build(CALLS.get(name, ROWS[name].call)), _posed(name, net, x, y)
        counts = attack.run(problem)
        forwards, backwards = float(counts.forwards.double().mean()), float(counts.backwards.double().mean())
        ratios = []
        for _ in range(rounds):
            before = _seconds(lambda: forward(net, x)), _seconds(lambda: input_gradient(net, x, y))
            took = _seconds(lambda attack=attack, problem=problem: attack.run(problem))  # type: ignore[misc]
            after = _seconds(lambda: forward(net, x)), _seconds(lambda: input_gradient(net, x, y))
            f, g = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
            ratios.append(took / (forwards * f + backwards * max(g - f, 0.0)))
        ratios.sort()
        rows.append(
            Row(
                what=f"{attack.call.partition('(')[0]}, {case.name}",
                against=f"{forwards:.0f} F + {backwards:.0f} B",
                value=ratios[len(ratios) // 2],
                target=None if small and name not in PROMISED else case.target,
                spread=(ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
            )
        )
    return rows


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _posed(name: str, net: nn.Module, x: Tensor, y: Tensor) -> Problem:
    return pose(net, x, y, budgets(tuple(x.shape[1:]), TINY)[ROWS[name].budget])
