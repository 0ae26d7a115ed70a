"""C22: a law that cannot fail is no law. Each mutant must turn each of its laws red; the honest code, none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from steepest.attacks.api import attack
from steepest.budgets.linf import Linf
from tests.conformance import laws
from tests.conformance.cases import case, line
from tests.conformance.test_state import snapshot, stateful
from tests.exact.test_objectives import test_margin_hides_the_own_class_by_minus_infinity as margin_hides
from tests.mutation import mutants
from tests.mutation.mutants import Mutant

Law = Callable[[], None]

STEEP = line([1.0, -2.0, 0.5])
NEAR = line([1.0, -2.0, 0.5], reach=0.95 * 3.5 * 0.25)


def full_step(text: str) -> list[Law]:
    return [
        lambda: laws.solves_the_linear_model(STEEP, text, 0.25),
        lambda: laws.breaks_what_only_the_full_budget_breaks(NEAR, text, 0.25),
    ]


def luck_is_each_examples_own() -> None:
    laws.more_effort_never_hurts(
        case("image K=10", seed=3, count=16), [f"pgd(steps=0, restarts={n})" for n in (1, 2, 3, 6)], "linf"
    )


def pixels_are_exact() -> None:
    """All 8-bit values, where x + 8/255 overshoots for 36 of them in float32."""
    some = case("series K=3", torch.float32)
    x = (torch.arange(252) / 255).reshape(21, 3, 4)
    some = type(some)(some.network, x, some.y[:1].expand(21))
    for name in ("linf", "masked linf"):
        budget = laws.budgets((3, 4), 8 / 255)[name]
        point = some.attack("fgsm", budget, drop_solved=False, goal=None).point
        assert laws.inside(point, x, budget, name).all()


def nothing_else_changes() -> None:
    network, x = stateful(), torch.rand(6, 4)
    before = snapshot(network, x)
    attack("pgd(steps=2)", network, x, torch.arange(6) % 3, Linf(0.1))
    assert all(was == now for was, now in zip(before, snapshot(network, x), strict=True))


def scale_does_not_matter() -> None:
    some = case("image K=10", torch.float32, seed=2, count=24)
    found = [attack("fgsm", lambda x, a=a: a * some.network(x), some.x, some.y, Linf(0.03)).won for a in (1.0, 1e4)]
    assert torch.equal(*found)


MOVES = [*full_step("fgsm"), *full_step("bim(steps=1, step=1)"), *full_step("pgd(steps=4)")]
RED: dict[str, tuple[Mutant, list[Law]]] = {
    "identity": (mutants.identity, MOVES),
    "minus sign": (mutants.minus_sign, MOVES),
    "half epsilon": (mutants.half_epsilon, MOVES),
    "last point not judged": (
        mutants.last_point_not_judged,
        [*full_step("fgsm"), *full_step("bim(steps=1, step=1)"), *full_step("mi-fgsm(steps=1)")],
    ),
    "last instead of best": (
        mutants.last_instead_of_best,
        [
            lambda: laws.keeps_what_it_crossed("bim(steps=20, step=0.02)"),
            lambda: laws.more_effort_never_hurts(
                case("image K=10", count=8), [f"noise(points={n})" for n in (1, 2, 3, 8)], "linf"
            ),
        ],
    ),
    "restart chosen per batch": (mutants.restart_chosen_per_batch, [luck_is_each_examples_own]),
    "overshoot": (mutants.overshoot, [pixels_are_exact]),
    "box forgotten": (
        mutants.box_forgotten,
        [lambda: laws.stays_feasible(case("image K=10", torch.float32), "fgsm", "linf")],
    ),
    "NaN taken for zero": (
        mutants.nan_taken_for_zero,
        [lambda: laws.nan_gradients_are_said("fgsm"), lambda: laws.nan_gradients_are_said("pgd(steps=3)")],
    ),
    "coupled batch": (
        mutants.coupled_batch,
        [lambda: laws.rows_are_independent(case("series K=3"), "fgsm", "linf")],
    ),
    "own class hidden by zero": (mutants.zero_hides_the_own_class, [margin_hides]),
    "plain cross-entropy": (mutants.plain_cross_entropy, [scale_does_not_matter]),
    "global seed": (mutants.global_seed, [nothing_else_changes]),
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, (_, found) in RED.items() for i in range(len(found))])
def test_the_law_is_green_for_honest_code_and_red_for_the_mutant(name, number, monkeypatch):
    mutant, found = RED[name]
    law = found[number]
    law()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        law()
