"""Training on FGSM's points collapses; the sentinel sees it in time; noise and aligned gradients prevent it."""

from __future__ import annotations

import pytest

from steepest.harden.sentinel import Sentinel
from steepest.harden.watch import Answer
from tests.planted.collapse import Run, trained

FALL, NEAR, BETTER = 0.2, 50, 0.1
ALIGNED = "grad-align(weight=2)"
SEEDS = (0, 1, 2)


def fall(run: Run) -> int:
    """The step at which the accuracy under PGD was first seen so far below its best, while that under FGSM rose."""
    best, start = 0.0, 0.0
    for point in run.points:
        if point.pgd > best:
            best, start = point.pgd, point.fgsm
        if point.pgd <= best - FALL and point.fgsm >= start:
            return point.step
    raise AssertionError(f"no collapse: {run.points}")


def collapses_and_is_rescued(seed: int, steps: int) -> tuple[Run, Run]:
    left = trained("fgsm", seed, steps=steps)
    watched = trained("fgsm", seed, steps=steps, sentinel=Sentinel(remedy="n-fgsm", keep=True))
    fell, ((number, sign), *more) = fall(left), watched.signs
    assert not more and sign.answer is Answer.ROLL_BACK
    assert number <= fell + NEAR
    assert left.end.pgd <= left.best - FALL and left.end.fgsm >= left.best
    assert watched.end.pgd >= left.end.pgd + BETTER and watched.end.clean >= 0.8 * left.end.clean
    return left, watched


def test_fgsm_collapses_and_the_sentinel_brings_it_back() -> None:
    collapses_and_is_rescued(2, 360)


@pytest.mark.full
@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_collapses_and_every_remedy_prevents_it(seed: int) -> None:
    left, _ = collapses_and_is_rescued(seed, 480)
    quiet = Sentinel(remedy="stop")
    for method, sentinel in (("n-fgsm", quiet), (ALIGNED, None)):
        found = trained(method, seed, sentinel=sentinel)
        assert found.end.pgd >= left.end.pgd + BETTER
        assert found.end.clean >= 0.8 * left.end.clean
    assert quiet.log and {entry.action for entry in quiet.log} <= {"none", "looked again"}
