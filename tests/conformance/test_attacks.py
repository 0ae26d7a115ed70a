"""Every catalogued attack × budgets × models: one table of laws; a new attack is covered by being catalogued."""

from __future__ import annotations

import pytest
import torch

from steepest.attacks.recipes import ATTACKS, STARTS
from steepest.basis.errors import UsageError
from steepest.basis.tensors import flat
from steepest.budgets.linf import Linf
from tests.conformance import laws
from tests.conformance.cases import CALLS, GRADIENT, NAMES, SHAPES, call, case, line, starts_at_x
from tests.tables import NAMES as BUDGETS

ALL_AT_ONCE = {"steps": 1, "step": 2.0, "noise": 0.0}
FEW = ["linf", "l2", "masked l1"]
KINDS = list(SHAPES)
full = pytest.mark.full


def table(kinds: list[str], names: list[str]) -> list:
    """(attack, budget, model): a few in every run, all of them under `make test-all`."""
    quick = {(kinds[i % len(kinds)], name) for i, name in enumerate(names)}
    return [
        pytest.param(attack, name, kind, marks=() if (kind, name) in quick else full)
        for attack in NAMES
        for name in BUDGETS
        for kind in KINDS
    ]


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, BUDGETS))
def test_points_are_feasible_and_what_is_said_of_them_is_true(attack, name, kind):
    laws.stays_feasible(case(kind, torch.float32), CALLS[attack], name)
    laws.says_what_is_true(case(kind), CALLS[attack], name)


@pytest.mark.parametrize("attack", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["linf", "l2", "l1", "one-sided"])
def test_every_precision_is_kept_and_feasible_exactly(attack, dtype, name):
    laws.stays_feasible(case("series K=3", dtype), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, FEW))
def test_no_example_ends_below_its_start(attack, name, kind):
    laws.never_below_its_start(case(kind, seed=1), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, FEW))
def test_same_seed_same_answer_and_batch_is_rows(attack, name, kind):
    laws.same_seed_same_answer(case(kind, count=3), CALLS[attack], name)
    laws.rows_are_independent(case(kind, count=4), CALLS[attack], name)


@pytest.mark.parametrize(("attack", "name", "kind"), table(KINDS, BUDGETS[::-1]))
def test_epsilon_zero_changes_nothing(attack, name, kind):
    laws.nothing_moves_without_a_budget(case(kind, torch.float32), CALLS[attack], name)


@pytest.mark.parametrize("attack", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 5, 5)], ids=str)
def test_any_number_of_examples_of_any_rank(attack, count, shape):
    def network(x):
        total = (flat(x) - 0.5).sum(1)
        return torch.stack([total, -total], 1)

    x = torch.full((count, *shape), 0.55)
    result = ATTACKS.build(CALLS[attack]).run(laws.posed(network, x, Linf(0.4)))
    assert result.point.shape == x.shape
    for field in ("won", "gauge", "value", "forwards", "backwards", "status"):
        assert getattr(result, field).shape == (count,)
    assert result.outputs.shape[0] == count
    if starts_at_x(CALLS[attack]):
        assert result.won.all()


@pytest.mark.parametrize("attack", [name for name in NAMES if not starts_at_x(CALLS[name])])
def test_another_seed_is_another_random_start(attack):
    some = case("series K=3")
    text = call(attack, steps=0, points=1)
    points = [some.attack(text, seed=seed, drop_solved=False).point for seed in (0, 1, 2**40, -1)]
    judged = [p[(p != some.x).flatten(1).any(1)] for p in points]
    assert all(len(p) for p in judged)
    for i, first in enumerate(points):
        for second in points[:i]:
            assert not torch.equal(first, second)


def rising(attack: str) -> list[list[str]]:
    """For each kind of effort that a recipe has: its calls in rising order, all else fixed."""
    known = ATTACKS.entry(attack).parameters
    found = [[call(attack, restarts=n) for n in (1, 2, 3)]] if "restarts" in known else []
    if "points" in known:
        found.append([call(attack, points=n) for n in (1, 2, 3, 6)])
    if {"steps", "step"} <= set(known):  # where the size of a step does not depend on their number
        found.append([call(attack, steps=n, step=0.3, restarts=1) for n in (0, 1, 2, 5)])
    return found


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("attack", "calls"), [(name, calls) for name in NAMES for calls in rising(name)])
def test_more_steps_points_or_restarts_never_lose_anything(attack, calls, name):
    laws.more_effort_never_hurts(case("series K=3", count=8), calls, name)


@pytest.mark.parametrize("attack", GRADIENT)
def test_one_step_moves_to_the_very_end_and_is_judged(attack):
    """C1: a step that is taken and never evaluated returns the clean image."""
    text = call(attack, **{**ALL_AT_ONCE, "restarts": 1})
    laws.solves_the_linear_model(line([1.0, -2.0, 0.5]), text, 0.25)
    laws.breaks_what_only_the_full_budget_breaks(line([1.0, -2.0, 0.5], reach=0.95 * 3.5 * 0.25), text, 0.25)


@pytest.mark.parametrize("attack", [name for name in GRADIENT if "steps" in ATTACKS.entry(name).parameters])
def test_a_success_on_the_way_is_what_comes_back(attack):
    laws.keeps_what_it_crossed(call(attack, steps=20, step=0.02))


@pytest.mark.parametrize("attack", NAMES)
def test_the_recipe_remembers_the_call_that_makes_it_again(attack):
    some = case("vector K=2")
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
