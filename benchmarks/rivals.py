"""The same attacks, from other libraries, on the same network and batch in the same run."""

from __future__ import annotations

from tests.rivals.libraries import LIBRARIES, Library, Walk

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.passes import TINY, forward
from benchmarks.timing import Contender, in_turns, rounds_of

STEPS = 10


def rivals(effort: float = 1.0) -> Result:
    """FGSM and PGD-10 with cross-entropy, against every library that is installed."""
    libraries = [library for library in LIBRARIES if library.installed]
    names = ", ".join(library.name for library in libraries) or "none is installed"
    return Result(
        title="Attacks against other libraries",
        note=f"Libraries: {names}. Never slower than the fastest means at most 1.00 in every row. Points: the "
        "attack's points, as the library returns them; ours are `st.fgsm`. Judged: the network was asked about the "
        "points too (one forward is added where a library does not ask); ours is `st.attack`, which also keeps the "
        "best point and, where it did not start at x, asks about x. The network is as users have it: its "
        "parameters require gradients. No example is ever broken, so none leaves the batch; in the rows "
        "'as it comes', ε is 8/255 and broken examples leave ours.",
        rows=tuple(row for case in CASES for row in _rows(case, libraries, effort)),
    )


def _rows(case: Case, libraries: list[Library], effort: float) -> list[Row]:
    net, x, y = case.made()
    net.requires_grad_(True)
    model, budget, shape = st.Model(net, box=(0, 1)), st.Linf(TINY), tuple(x.shape)
    pgd = st.recipes.pgd(steps=STEPS)
    walk, wide = Walk(eps=TINY, step=TINY / 4, steps=STEPS, random=True), Walk(eps=8 / 255, step=2 / 255, steps=STEPS)
    ours: dict[str, Contender] = {
        "FGSM, points": lambda: st.fgsm(model, x, y, budget, objective="ce"),
        "FGSM, judged": lambda: st.attack("fgsm", model, x, y, budget, objective="ce"),
        "PGD-10, judged": lambda: st.attack(pgd, model, x, y, budget, objective="ce"),
        "PGD-10 as it comes, judged": lambda: st.attack(pgd, model, x, y, st.Linf(8 / 255), objective="ce"),
    }
    all_of_them = dict(ours)
    for library in libraries:
        fgsm, walked = library.fgsm(net, shape, TINY), library.pgd(net, shape, walk)
        widely = library.pgd(net, shape, wide)
        judge = (lambda points: points) if library.judges else (lambda points: forward(net, points))
        theirs: dict[str, Contender] = {
            "FGSM, points": lambda fgsm=fgsm: fgsm(x, y),
            "FGSM, judged": lambda fgsm=fgsm, judge=judge: judge(fgsm(x, y)),
            "PGD-10, judged": lambda walked=walked, judge=judge: judge(walked(x, y)),
            "PGD-10 as it comes, judged": lambda widely=widely, judge=judge: judge(widely(x, y)),
        }
        all_of_them |= {f"{name} by {library.name}": run for name, run in theirs.items()}
    times = in_turns(all_of_them, rounds_of(case.rounds, effort / 2))
    rows = []
    for name in ours:
        for library in libraries:
            value, spread = times.ratio(name, f"{name} by {library.name}")
            rows.append(Row(what=f"{name}, {case.name}", against=library.name, value=value, target=1.0, spread=spread))
    return rows
