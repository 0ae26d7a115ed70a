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
        solves: a call that breaks a linear model which needs `share` of the budget in the best direction; `call` if
            left out. Mutants of the attack must fail at it.
        share: more than one half, so that half of the budget is not enough; 0 where the attack does not use it.
        looks_first: its first question is a forward alone, e.g. to rank the classes at x.
        several: it asks about several points of an example at once, so the batch also grows.
        views: it asks about changed copies, on which no feature says any longer whose they are.
        blind: on a flat model it says so (ZERO_GRADIENT); only attacks that follow gradients can.
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
    solves: str = ""
    share: float = 0.9
    looks_first: bool = False
    several: bool = False
    views: bool = False
    blind: bool = True


ROWS: dict[str, Row] = {
    "apgd": Row(
        call="apgd(steps=4, restarts=2)",
        golden=(
            ("apgd(steps=100)", 101, 100),
            ("apgd(steps=8, restarts=3, start='odi')", 33, 30),
            ("apgd(steps=5, targets=9)", 55, 45),
        ),
        # Not `random`: a first step of twice the budget leads to the same corner from anywhere.
        one_step="apgd(steps=1)",
        effort=(tuple(f"apgd(steps=4, restarts={n})" for n in (1, 2, 3)),),
    ),
    "autoattack": Row(
        call="autoattack(steps=2, queries=4)",
        golden=(
            # One question at x; per run steps gradients and steps + 1 forwards, of FAB twice as many forwards.
            ("autoattack", 1 + 101 + 9 * 101 + 9 * 201 + 5001, 100 + 9 * 100 + 9 * 100),
            ("autoattack(version='rand', steps=5)", 1 + 2 * 20 * 6, 2 * 20 * 5),
        ),
        looks_first=True,
        solves="autoattack(steps=10, queries=50)",
    ),
    "bim": Row(
        call="bim(steps=4)",
        solves="bim(steps=8)",
        golden=(("bim(steps=7)", 8, 7),),
        one_step="bim(steps=1, step=2.0)",
        crossing="bim(steps=20, step=0.02)",
        effort=(tuple(f"bim(steps={n}, step=0.3)" for n in (0, 1, 2, 5)),),
    ),
    "bisection": Row(
        call="bisection(attack='pgd(steps=4)', rounds=2)",
        golden=(("bisection(attack='pgd(steps=5)', rounds=4)", 7, 5),),
        random=True,
    ),
    "boundary": Row(
        solves="boundary(queries=400, starts=20)",
        share=0.8,
        call="boundary(queries=70, starts=12)",
        golden=(("boundary(queries=200, starts=30)", 199, 0),),
        budget="l2",
        random=True,
        blind=False,
    ),
    "cw": Row(
        solves="cw(steps=40, searches=5, lr=0.05)",
        call="cw(steps=4, searches=2, lr=0.1, c=10.0)",
        golden=(("cw(steps=5, searches=3)", 16, 15),),
        budget="l2",
    ),
    "ddn": Row(solves="ddn(steps=40)", call="ddn(steps=4)", golden=(("ddn", 101, 100),), budget="l2"),
    "deepfool": Row(
        call="deepfool(steps=4)",
        golden=(("deepfool(steps=5)", 7, 50), ("deepfool(steps=3, classes=4)", 5, 12)),
        looks_first=True,
    ),
    "di-fgsm": Row(
        solves="di-fgsm(steps=10)",
        share=0.8,
        call="di-fgsm(steps=4, resize=0.5)",
        golden=(("di-fgsm", 21, 10), ("di-fgsm(steps=3, diversity=0.0)", 4, 3)),
        images=True,
        random=True,
    ),
    "ead": Row(
        solves="ead(steps=60, searches=5, lr=0.05)",
        share=0.8,
        call="ead(steps=4, searches=2, lr=0.1, c=10.0)",
        golden=(("ead(steps=5, searches=3)", 30, 15),),
        budget="l1",
    ),
    "fab": Row(
        call="fab(steps=4, restarts=2)",
        golden=(
            ("fab(steps=5)", 14, 50),
            ("fab(targets=9)", 1 + 9 * 203, 900),
            ("fab(steps=4, targets=2, restarts=2, closing=0)", 1 + 4 * 9, 16),
        ),
        # Further restarts draw points, but the smallest success is seldom theirs: see test_smallest.
        looks_first=True,
        effort=(tuple(f"fab(steps=4, restarts={n})" for n in (1, 2, 3)),),
    ),
    "fgsm": Row(call="fgsm", golden=(("fgsm", 2, 1),), one_step="fgsm"),
    "fmn": Row(call="fmn(steps=4)", golden=(("fmn", 101, 100),)),
    "frank-wolfe": Row(
        call="frank-wolfe(steps=4)",
        golden=(("frank-wolfe", 21, 20),),
        one_step="frank-wolfe(steps=1)",
    ),
    "greedy-swap": Row(
        call="greedy-swap(rounds=2, swaps=3)",
        golden=(("greedy-swap", 190, 10), ("greedy-swap(rounds=2, swaps=3)", 12, 2)),
        several=True,
        one_step="greedy-swap(rounds=1)",
        effort=(tuple(f"greedy-swap(rounds={n}, swaps=3)" for n in (1, 2, 3, 5)),),
    ),
    "hopskipjump": Row(
        solves="hopskipjump(queries=1500, points=20, starts=12)",
        share=0.8,
        call="hopskipjump(queries=150, points=6, starts=12)",
        golden=(("hopskipjump(queries=400, points=20, starts=30)", 335, 0),),
        random=True,
        blind=False,
    ),
    "md": Row(
        call="md(steps=4)",
        golden=(("md", 102, 100), ("md(steps=5, restarts=3)", 36, 30)),
        # Not `random`, for the same reason.
        effort=(tuple(f"md(steps=4, restarts={n})" for n in (1, 2, 3)),),
    ),
    "mi-fgsm": Row(
        call="mi-fgsm(steps=4)",
        golden=(("mi-fgsm(steps=7)", 8, 7),),
        one_step="mi-fgsm(steps=1)",
        crossing="mi-fgsm(steps=20)",
    ),
    "nes": Row(
        solves="nes(steps=10, samples=50)",
        call="nes(steps=4, samples=6)",
        golden=(("nes(steps=3, samples=5)", 3 * 11 + 1, 0), ("nes", 50 * 101 + 1, 0)),
        random=True,
        one_step="nes(steps=1, samples=600, step=2.0)",
        crossing="nes(steps=20, samples=6, step=0.02)",
        effort=(tuple(f"nes(steps={n}, samples=4, step=0.3)" for n in (0, 1, 2, 5)),),
    ),
    "ni-fgsm": Row(
        call="ni-fgsm(steps=4)",
        golden=(("ni-fgsm", 20, 10), ("ni-fgsm(steps=3, momentum=0)", 4, 3)),
        one_step="ni-fgsm(steps=1)",
        crossing="ni-fgsm(steps=20)",
    ),
    "noise": Row(
        call="noise(points=6)",
        golden=(("noise", 100, 0), ("noise(points=7)", 7, 0)),
        random=True,
        effort=(tuple(f"noise(points={n})" for n in (1, 2, 3, 6)),),
        share=0,
        blind=False,
    ),
    "odi": Row(
        solves="odi(steps=8, restarts=1)",
        call="odi(steps=4, restarts=2)",
        golden=(("odi", 460, 440), ("odi(steps=5, restarts=3, diversify=1)", 21, 18)),
        random=True,
        effort=(tuple(f"odi(steps=3, restarts={n})" for n in (1, 2, 3)),),
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
    "r-fgsm": Row(
        call="r-fgsm",
        golden=(("r-fgsm", 2, 1),),
        random=True,
        one_step="r-fgsm(noise=0.0)",
        solves="r-fgsm(noise=0.1)",
        share=0.7,
    ),
    "rays": Row(call="rays(queries=40)", golden=(("rays(queries=7)", 7, 0), ("rays(queries=60)", 60, 0)), blind=False),
    "si-fgsm": Row(
        call="si-fgsm(steps=3, scales=3)",
        views=True,
        golden=(("si-fgsm", 51, 50), ("si-fgsm(steps=3, scales=1)", 4, 3)),
        one_step="si-fgsm(steps=1)",
        crossing="si-fgsm(steps=20)",
    ),
    "sigma-zero": Row(
        solves="sigma-zero(steps=300)",
        call="sigma-zero(steps=6)",
        golden=(("sigma-zero(steps=7)", 8, 7),),
        budget="l0",
    ),
    "simba": Row(
        solves="simba(queries=60)",
        call="simba(queries=6, restarts=2)",
        golden=(("simba", 1001, 0), ("simba(queries=7)", 8, 0)),
        random=True,
        effort=(
            tuple(f"simba(queries={n})" for n in (0, 1, 5, 30)),
            tuple(f"simba(queries=3, restarts={n})" for n in (1, 2, 3)),
        ),
        blind=False,
    ),
    "spatial": Row(
        share=0, call="spatial(angles=3, shifts=3)", golden=(("spatial", 775, 0),), images=True, blind=False
    ),
    "spsa": Row(
        solves="spsa(steps=10, samples=50, lr=0.2)",
        call="spsa(steps=4, samples=6, lr=0.2)",
        golden=(("spsa(steps=3, samples=5)", 3 * 11 + 1, 0), ("spsa(steps=2)", 2 * 257 + 1, 0)),
        random=True,
        one_step="spsa(steps=1, samples=600, lr=1.0)",
        effort=(tuple(f"spsa(steps={n}, samples=4, lr=0.1)" for n in (0, 1, 2, 5)),),
    ),
    "relay": Row(
        call="relay(rounds=2, queries=4, climb=3)",
        golden=(
            ("relay", 865, 132),
            ("relay(rounds=1, climb=20)", 81, 19),
            ("relay(rounds=2, queries=5, climb=3)", 17, 4),
        ),
        random=True,
        solves="relay(rounds=1, queries=2, climb=20)",
    ),
    "square": Row(
        solves="square(queries=300)",
        call="square(queries=6, restarts=2)",
        golden=(("square", 5001, 0), ("square(queries=50)", 51, 0), ("square(queries=7, restarts=3)", 24, 0)),
        random=True,
        effort=(
            tuple(f"square(queries={n})" for n in (0, 1, 5, 30)),
            tuple(f"square(queries=3, restarts={n})" for n in (1, 2, 3)),
        ),
        blind=False,
    ),
    "ti-fgsm": Row(
        solves="ti-fgsm(steps=10, kernel=3)",
        share=0.8,
        call="ti-fgsm(steps=4)",
        golden=(("ti-fgsm", 11, 10),),
        images=True,
    ),
    "universal": Row(
        call="universal(steps=4, step=0.3)",
        golden=(("universal", 51, 50), ("universal(steps=3)", 4, 3)),
        beyond=True,
        one_step="universal(steps=1, step=1.0)",
    ),
    "vmi-fgsm": Row(
        call="vmi-fgsm(steps=4, variance=3)",
        golden=(("vmi-fgsm", 191, 190), ("vmi-fgsm(steps=3, variance=0)", 4, 3)),
        random=True,
        several=True,
        one_step="vmi-fgsm(steps=1)",
        crossing="vmi-fgsm(steps=20, variance=2)",
    ),
}
"""One row per attack, in any order; a catalogued attack without a row fails `test_every_attack_has_its_row`."""


def asks_for_gradients(name: str) -> bool:
    """Whether an attack follows gradients of the model itself."""
    return ATTACKS.entry(name).facts["needs"] == "gradient"
