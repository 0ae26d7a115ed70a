"""Training on FGSM's points collapses; the sentinel sees it in time; noise and aligned gradients prevent it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.trained import IMAGES, Centred, decoded
from torch import Tensor, nn

import steepest as st
from steepest.diagnose.contract import Family
from steepest.harden.loop import Hardening
from steepest.harden.sentinel import Sentinel
from steepest.harden.watch import Answer
from tests.planted.collapse import EPSILON, Run, network, task, trained

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


def warned(run: Run, seed: int) -> bool:
    """Whether the panel says of the last network that it learned one step."""
    data = task(seed)
    seen = data.x_held[:64], data.y_held[:64]
    found = st.diagnose(run.network.eval(), seen, st.Linf(EPSILON), checks=("single-step",), seed=seed)
    return found.verdict.word == Family.ONE_STEP.value


def test_fgsm_collapses_the_panel_says_so_and_the_sentinel_brings_it_back() -> None:
    left, watched = collapses_and_is_rescued(2, 360)
    assert warned(left, 2) and not warned(watched, 2)


def hardened(watch: Sentinel | None) -> tuple[st.Hardened, float]:
    """The house's own loop on the same images at a budget of 0.16, where its steps fall sooner."""
    data, budget = task(2), st.Linf(0.16)
    course = {"epochs": 90, "batch_size": 64, "lr": 0.05, "schedule": "piecewise", "seed": 2, "held_out": 0.0}
    found = st.harden(network(2), (data.x, data.y), budget, method="fgsm", watch=watch, **course)
    model = st.Model(found.network)
    broken = st.attack("pgd(steps=10, step=0.25)", model, data.x_held, data.y_held, budget).won
    return found, 1 - float(broken.double().mean())


def test_inside_harden_the_sentinel_hands_over_to_its_remedy() -> None:
    found, right = hardened(Sentinel(remedy="n-fgsm"))
    (seen,) = found.seen
    assert seen.sign.name == "catastrophic overfitting" and "with n-fgsm" in seen.done
    assert found.method.startswith("n-fgsm") and found.epochs[-1].method == found.method
    assert len(found.epochs) == 90 and right >= 0.1 + BETTER


@pytest.mark.full
def test_inside_harden_nobody_watches_and_fgsm_ends_in_nothing() -> None:
    found, right = hardened(None)
    assert found.seen == () and found.method.startswith("fgsm") and right <= 0.1


@pytest.mark.full
@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_collapses_and_every_remedy_prevents_it(seed: int) -> None:
    left, watched = collapses_and_is_rescued(seed, 480)
    assert warned(left, seed) and not warned(watched, seed)
    quiet = Sentinel(remedy="stop")
    for method, sentinel in (("n-fgsm", quiet), (ALIGNED, None)):
        found = trained(method, seed, sentinel=sentinel)
        assert not warned(found, seed)
        assert found.end.pgd >= left.end.pgd + BETTER
        assert found.end.clean >= 0.8 * left.end.clean
    assert quiet.log and {entry.action for entry in quiet.log} <= {"none", "looked again"}


def photographs(folder: Path, method: str, watch: Sentinel | None) -> tuple[Hardening, Tensor, Tensor]:
    """One convolution of 16 filters, trained on 4,000 images of CIFAR-10 at 16/255; and 256 images held out."""
    x, y = decoded(folder / IMAGES)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    held, learnt = order[:256], order[256:4256]
    torch.manual_seed(1)
    net = nn.Sequential(Centred(), nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 1024, 10))
    course = {"method": method, "epochs": 10, "lr": 0.02, "held_out": 0.0, "watch": watch}
    loop = st.hardening(net, (x[learnt], y[learnt]), st.Linf(16 / 255), **course)
    for _ in loop:
        continue
    return loop, x[held], y[held]


@pytest.mark.full
def test_a_network_that_collapsed_on_photographs_is_named(shared_data: Path) -> None:
    loop, x, y = photographs(shared_data, "fgsm", None)
    model, budget = st.Model(loop.network.eval()), st.Linf(16 / 255)
    jumped = st.fgsm(model, x, y, budget, objective="ce")
    clean, after = ((model.logits(at).argmax(1) == y).double().mean() for at in (x, jumped))
    left = st.attack("pgd(steps=20)", model, x, y, budget)
    assert after > clean > 0.2 and left.won.double().mean() > 0.95
    for seen in torch.arange(256).split(64):
        found = st.diagnose(model, (x[seen], y[seen]), budget, checks=("single-step", "alignment"))
        assert found.verdict.word == Family.ONE_STEP.value


@pytest.mark.full
def test_a_sentinel_that_never_saw_photographs_speaks_before_fgsm_passes_clean_accuracy(shared_data: Path) -> None:
    """FGSM's accuracy passes that at x about step 160; on a training with noise the sentinel is silent."""
    loop, _, _ = photographs(shared_data, "fgsm", Sentinel(remedy="stop"))
    (seen,) = loop.seen
    assert seen.sign.name == "catastrophic overfitting" and seen.step < 160
    quiet, _, _ = photographs(shared_data, "n-fgsm", Sentinel(remedy="stop"))
    assert quiet.seen == [] and quiet.ended
