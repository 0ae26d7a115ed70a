"""The one row that every attack brings: how it is called where all attacks are asked alike, and what it must cost."""

from __future__ import annotations

from dataclasses import dataclass

from steepest.attacks.recipes import ATTACKS


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the laws of `test_attacks`, `test_counts`, `test_sick` and `test_state` need to know of one attack.

    Attributes:
        call: cheap, and with every kind of effort at least twice: steps=4, restarts=2.
        golden: (call, forwards, backwards) per example where nothing is ever solved; ten classes, 1×4×4 pixels, the
            row's budget at ε = 0.1; without the one forward at x that `st.attack` adds where a search starts elsewhere.
        budget: a name of `tests.tables.budgets`; the attack is asked under it where one budget must do.
        images: it serves images [N, C, H, W] only.
        random: another seed gives other points.
        one_step: a call whose single step must reach the end of an L∞ budget on a linear model; "" for none.
        crossing: a call that walks in small L∞ steps, and must return a success that it crossed; "" for none.
        effort: lists of calls in rising order of effort: successes are kept and values never fall.
        beyond: it is exempt, by name, from the laws that points stay in the budget and that rows are independent.
        blind: on a flat model it says so (ZERO_GRADIENT); only attacks that follow gradients can.
        several: it asks about several points of an example at once, so the batch also grows.
    """

    call: str
    golden: tuple[tuple[str, int, int], ...]
    budget: str = "linf"
    images: bool = False
    random: bool = False
    one_step: str = ""
    crossing: str = ""
    effort: tuple[tuple[str, ...], ...] = ()
    beyond: bool = False
    blind: bool = True
    several: bool = False


ROWS: dict[str, Row] = {
    "fgsm": Row(call="fgsm", golden=(("fgsm", 2, 1),), one_step="fgsm"),
    "r-fgsm": Row(call="r-fgsm", golden=(("r-fgsm", 2, 1),), random=True, one_step="r-fgsm(noise=0.0)"),
    "bim": Row(
        call="bim(steps=4)",
        golden=(("bim(steps=7)", 8, 7),),
        one_step="bim(steps=1, step=2.0)",
        crossing="bim(steps=20, step=0.02)",
        effort=(tuple(f"bim(steps={n}, step=0.3)" for n in (0, 1, 2, 5)),),
    ),
    "pgd": Row(
        call="pgd(steps=4, restarts=2)",
        golden=(("pgd", 21, 20), ("pgd(steps=5, restarts=3)", 18, 15)),
        random=True,
        one_step="pgd(steps=1, step=2.0)",
        crossing="pgd(steps=20, step=0.02, restarts=2)",
        effort=(
            tuple(f"pgd(steps=4, restarts={n})" for n in (1, 2, 3)),
            tuple(f"pgd(steps={n}, step=0.3)" for n in (0, 1, 2, 5)),
        ),
    ),
    "mi-fgsm": Row(
        call="mi-fgsm(steps=4)",
        golden=(("mi-fgsm(steps=7)", 8, 7),),
        one_step="mi-fgsm(steps=1)",
        crossing="mi-fgsm(steps=20)",
    ),
    "noise": Row(
        call="noise(points=6)",
        golden=(("noise", 100, 0), ("noise(points=7)", 7, 0)),
        random=True,
        effort=(tuple(f"noise(points={n})" for n in (1, 2, 3, 6)),),
        blind=False,
    ),
    "greedy-swap": Row(
        call="greedy-swap(rounds=2, swaps=3)",
        golden=(("greedy-swap", 190, 10), ("greedy-swap(rounds=2, swaps=3)", 12, 2)),
        several=True,
        one_step="greedy-swap(rounds=1)",
        effort=(tuple(f"greedy-swap(rounds={n}, swaps=3)" for n in (1, 2, 3, 5)),),
    ),
}
"""One row per attack, in any order; a catalogued attack without a row fails `test_every_attack_has_its_row`."""


def asks_for_gradients(name: str) -> bool:
    """Whether an attack follows gradients of the model itself."""
    return ATTACKS.entry(name).facts["needs"] == "gradient"
