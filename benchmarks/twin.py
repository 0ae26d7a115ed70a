"""Searching in a prepared twin: against the same search in the model itself, and against other libraries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from tests.rivals.libraries import LIBRARIES, Library, Walk
from torch import Tensor, nn

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.passes import TINY, forward
from benchmarks.timing import Contender, Times, in_turns, rounds_of
from steepest.attacks.api import pose
from steepest.models.inspection import inspected
from steepest.models.objectives import objective_of
from steepest.models.prepare import HALF, Preparation, prepare

RIVALS = ("Foolbox", "torchattacks", "ART")
LARGE = replace(CASES[0], name="ResNet-18, batch 8", batch=(8, 3, 32, 32))
PGD = st.recipes.pgd(steps=10)


def twin(effort: float = 1.0) -> Result:
    """PGD-10 in the twin with the verdict of the model, on one thread, whatever `--threads` says."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, notes = zip(*(_measured(case, effort) for case in (LARGE, CASES[1])), strict=True)
    finally:
        torch.set_num_threads(threads)
    return Result(
        title="Searching in a twin",
        note="One thread. Examples a second of PGD-10 in the prepared twin, whose points the model itself is asked "
        "about at the end, over the same search in the model as it comes, and over the fastest of Foolbox, "
        "torchattacks and ART (judged). Ratios of the shortest times of contenders that take turns, in seconds of "
        "the processor, which other programs on the machine disturb least; the middle half is of the pairs. ε is "
        "1e-6, so that no example leaves. Inside the network: forwards, and backwards with the objective's. "
        f"{' '.join(notes)}",
        rows=tuple(row for part in rows for row in part),
    )


def _measured(case: Case, effort: float) -> tuple[list[Row], str]:
    net, x, y = case.made()
    net.requires_grad_(True)  # as users have it
    model, budget = inspected(st.Model(net, box=(0, 1)), x[:32]), st.Linf(TINY)
    found = prepare(model, x, y, objective_of("scaled-ce"))
    own, ours = pose(model, x, y, budget), pose(found.model, x, y, budget)
    contenders: dict[str, Contender] = {
        "twin": lambda: model.logits(PGD.run(ours).point),
        "model": lambda: PGD.run(own),
    }
    for library in LIBRARIES:
        if library.installed and library.name in RIVALS:
            contenders[library.name] = _theirs(library, net, x, y)
    times = in_turns(contenders, rounds_of(case.rounds, effort), time.process_time)
    promised = case is LARGE
    half = HALF in found.changes
    rows = [_row(case, times, "the model as it comes", "model", (1.8 if half else 1.04) if promised else None)]
    rivals = [name for name in contenders if name in RIVALS]
    if rivals:
        first = times.fastest(rivals)
        rows.append(_row(case, times, f"{first}, the fastest", first, (2.2 if half else 1.3) if promised else None))
    for name, problem in (("model", own), ("twin", ours)):
        rows.append(
            Row(
                what=f"time of PGD-10 inside the network, {name}, {case.name}",
                against="all of it",
                value=max(_share_inside(lambda problem=problem: PGD.run(problem)) for _ in range(3)),  # type: ignore[misc]
                target=0.95 if promised else None,
                at_least=True,
            )
        )
    return rows, _described(case, found)


def _row(case: Case, times: Times, label: str, against: str, target: float | None) -> Row:
    _, (low, high) = times.ratio(against, "twin")
    value = min(times.seconds[against]) / min(times.seconds["twin"])
    what = f"PGD-10 in the twin, {case.name}"
    return Row(what=what, against=label, value=value, target=target, at_least=True, spread=(low, high))


def _described(case: Case, found: Preparation) -> str:
    changes = ", ".join(found.changes) or "nothing"
    return (
        f"{case.name}: {changes} ({found.speedup:.2f} times as many gradients a second, outputs within "
        f"{found.difference:.2g} of the largest; chosen in {found.seconds:.1f} s)."
    )


def _theirs(library: Library, net: nn.Module, x: Tensor, y: Tensor) -> Contender:
    walk = library.pgd(net, tuple(x.shape), Walk(eps=TINY, step=TINY / 4, steps=10, random=True))
    return (lambda: walk(x, y)) if library.judges else (lambda: forward(net, walk(x, y)))


def _share_inside(work: Callable[[], object]) -> float:
    """Return the share of the time of `work` that is spent in `Model`'s calls of the network and of autograd."""
    with _timed(st.Model, "_ask") as forwards, _timed(torch.autograd, "grad") as backwards:
        begin = time.process_time()
        work()
        whole = time.process_time() - begin
    return (sum(forwards) + sum(backwards)) / whole


@contextmanager
def _timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Yield the seconds of each call of `owner.name` made inside."""
    spent: list[float] = []
    original = getattr(owner, name)

    def timed(*args: Any, **given: Any) -> Any:
        begin = time.process_time()
        try:
            return original(*args, **given)
        finally:
            spent.append(time.process_time() - begin)

    setattr(owner, name, timed)
    try:
        yield spent
    finally:
        setattr(owner, name, original)
