"""Every catalogued attack × budgets × models: one table of laws; a new attack is covered by being catalogued."""

from __future__ import annotations

from inspect import signature

import pytest
import torch

from steepest.attacks.recipes import ATTACKS
from steepest.attacks.starts import STARTS
from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat
from tests.conformance import laws
from tests.conformance.cases import CALLS, NAMES, SHAPES, case, kind_for, line, serves, starts_at_x
from tests.conformance.table import ROWS
from tests.tables import ITERATED, budgets
from tests.tables import NAMES as BUDGETS

FEW = ["linf", "l2", "masked l1"]
KINDS = list(SHAPES)
full = pytest.mark.full


PLAIN = ("fgsm", "bim", "noise")
"""These meet every budget in every run; the others a third of those with a closed form, and all under `test-all`."""


def table(kinds: list[str], names: list[str]) -> list:
    """(attack, budget, model): some in every run, all of them under `make test-all`."""
    small = next(kind for kind in SHAPES if kind in kinds)
    # Iterated sets are asked in two or four dimensions: in images a single law would take minutes.
    quick = {name: small if name in ITERATED else kinds[i % len(kinds)] for i, name in enumerate(names)}
    rows = []
    for number, attack in enumerate(NAMES):
        for place, name in enumerate(names):
            # Where an attack serves one kind of input only, that kind is in every run.
            today = quick[name] if serves(attack, name, quick[name]) else "image K=10"
            turn = (
                attack in PLAIN or (name not in ITERATED and (number + place) % 3 == 0) or name == ROWS[attack].budget
            )
            rows += [
                pytest.param(attack, name, kind, marks=() if turn and kind == today else full)
                for kind in kinds
                if serves(attack, name, kind) and (name not in ITERATED or kind == today)
            ]
    return rows


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, BUDGETS))
def test_points_are_feasible_and_what_is_said_of_them_is_true(attack, name, kind):
    if not ROWS[attack].beyond:
        laws.stays_feasible(case(kind, torch.float32), CALLS[attack], name)
    laws.says_what_is_true(case(kind), CALLS[attack], name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("attack", "name"),
    [(a, name) for a in NAMES for name in ["linf", "l2", "l1", "one-sided"] if serves(a, name) and not ROWS[a].beyond],
)
def test_every_precision_is_kept_and_feasible_exactly(attack, dtype, name):
    laws.stays_feasible(case(kind_for(attack, "series K=3"), dtype), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, FEW))
def test_no_example_ends_below_its_start(attack, name, kind):
    laws.never_below_its_start(case(kind, seed=1), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, FEW))
def test_same_seed_same_answer_and_batch_is_rows(attack, name, kind):
    laws.same_seed_same_answer(case(kind, count=3), CALLS[attack], name)
    if not ROWS[attack].beyond:
        laws.rows_are_independent(case(kind, count=4), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, BUDGETS[::-1]))
def test_epsilon_zero_changes_nothing(attack, name, kind):
    laws.nothing_moves_without_a_budget(case(kind, torch.float32), CALLS[attack], name)


@pytest.mark.parametrize("attack", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 5, 5)], ids=str)
def test_any_number_of_examples_of_any_rank(attack, count, shape):
    if ROWS[attack].images and len(shape) != 3:
        pytest.skip("images only")

    def network(x):
        total = (flat(x) - 0.5).sum(1)
        return torch.stack([total, -total], 1)

    x = torch.full((count, *shape), 0.55)
    budget = budgets(shape or (1,), 0.4)[ROWS[attack].budget]
    result = ATTACKS.build(CALLS[attack]).run(laws.posed(network, x, budget))
    assert result.point.shape == x.shape
    for field in ("won", "gauge", "value", "forwards", "backwards", "status"):
        assert getattr(result, field).shape == (count,)
    assert result.outputs.shape[0] == count
    if starts_at_x(CALLS[attack]) and ROWS[attack].budget == "linf" and ROWS[attack].blind:
        assert result.won.all()


@pytest.mark.parametrize("attack", [name for name in NAMES if ROWS[name].random])
def test_another_seed_is_another_answer(attack):
    some = case(kind_for(attack, "series K=3"))
    points = [some.attack(CALLS[attack], seed=seed, drop_solved=False).point for seed in (0, 1, 2**40, -1)]
    judged = [p[(p != some.x).flatten(1).any(1)] for p in points]
    assert all(len(p) for p in judged)
    for i, first in enumerate(points):
        for second in points[:i]:
            assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("attack", "calls", "name"),
    [(a, calls, name) for a in NAMES for calls in ROWS[a].effort for name in FEW if serves(a, name)],
)
def test_more_steps_points_or_restarts_never_lose_anything(attack, calls, name):
    laws.more_effort_never_hurts(case(kind_for(attack, "series K=3"), count=8), list(calls), name)


@pytest.mark.parametrize("attack", [name for name in NAMES if ROWS[name].one_step])
def test_one_step_moves_to_the_very_end_and_is_judged(attack):
    """C1: a step that is taken and never evaluated returns the clean image."""
    text = ROWS[attack].one_step
    laws.solves_the_linear_model(line([1.0, -2.0, 0.5]), text, 0.25)
    laws.breaks_what_only_the_full_budget_breaks(line([1.0, -2.0, 0.5], reach=0.95 * 3.5 * 0.25), text, 0.25)


@pytest.mark.parametrize("attack", [name for name in NAMES if ROWS[name].crossing])
def test_a_success_on_the_way_is_what_comes_back(attack):
    laws.keeps_what_it_crossed(ROWS[attack].crossing)


@pytest.mark.parametrize("attack", NAMES)
def test_the_recipe_remembers_the_call_that_makes_it_again(attack):
    some = case(kind_for(attack, "vector K=2"))
    first = some.attack(CALLS[attack], seed=5)
    assert first.seed == 5
    assert laws.equal(first, some.attack(first.recipe, seed=first.seed))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", BUDGETS)
def test_every_random_start_keeps_the_laws(start, name):
    text = f"pgd(steps=2, restarts=2, start={start!r})"
    some = case("series K=3", torch.float32)
    laws.stays_feasible(some, text, name)
    laws.stays_feasible(some, f"pgd(steps=0, start={start!r})", name)
    laws.says_what_is_true(case("series K=3"), text, name)
    laws.nothing_moves_without_a_budget(some, text, name)
    if name in FEW:
        laws.rows_are_independent(case("series K=3", count=3), text, name)


def test_parameters_outside_their_range_are_refused():
    for text in ("pgd(start='somewhere')", "pgd(restarts=0)", "bim(steps=-1)", "r-fgsm(noise=1.5)", "noise(points=0)"):
        with pytest.raises(UsageError):
            ATTACKS.build(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_outside_its_range_is_refused_by_the_name_of_the_attack(name):
    for parameter in signature(ATTACKS.entry(name).factory).parameters.values():
        wrong = {int: -1, float: float("nan"), str: "no such thing"}.get(type(parameter.default))
        if wrong is None:
            continue
        with pytest.raises(UsageError) as said:
            ATTACKS.entry(name).factory(**{parameter.name: wrong})
        assert str(said.value).startswith(f"{name}: "), parameter.name
        assert parameter.name in str(said.value)
        assert str(wrong) in str(said.value)
        assert str(said.value).count(f"{name}: ") == 1
