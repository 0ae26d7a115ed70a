"""Every training method on CIFAR-10 images and a small ResNet: what it reaches, what it costs, whether it collapses.

`python -m benchmarks hardening` measures all methods at both budgets; `python -m benchmarks.hardening` has options.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import steepest as st
from benchmarks.contract import Result, Row, Table
from benchmarks.nets import small_resnet
from benchmarks.rendering import as_markdown
from benchmarks.subjects import CIFAR, DATA
from benchmarks.trained import IMAGES, Centred, decoded
from steepest.audit.data import open_data
from steepest.audit.data.selection import select
from steepest.harden.loop import Hardening

BUDGETS = (("8/255", 8 / 255), ("16/255", 16 / 255))
BATCH = 128
N_FGSM, SENTINEL = 1.1, 1.03
"""Promised: the price of a step of N-FGSM, and of FGSM under the sentinel, over one of FGSM."""

NOTE = (
    "A small ResNet (a convolution of 16 channels and stride 2, three blocks of 16, 32 and 64 channels), "
    "{count} images, {epochs} epochs of cyclic SGD in batches of 128 with crops and flips, one seed; the epochs "
    "of `free` are divided by its replays. The *last* weights are attacked on {tested} test images: 'PGD-50-10' is "
    "ten starts of fifty steps, 'audit' the cascade `standard`; accuracies are of all images, in %. Seconds are of the "
    "processor for the training steps alone, {threads} thread(s); B counts backwards over an example. The rows below "
    "the table compare single steps that take turns, of networks beside one another."
)
HEADER = ("method", "ε", "clean", "FGSM", "PGD-50-10", "audit", "training s", "B a step", "sentinel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A method as it is trained here.

    Attributes:
        replays: steps on the same batch; there are so many times fewer epochs.
        watched: by the sentinel.
    """

    call: str
    replays: int = 1
    watched: bool = False

    @property
    def shown(self) -> str:
        return f"`{self.call}` + sentinel" if self.watched else f"`{self.call}`"


def ways(epsilon: float) -> tuple[Way, ...]:
    """The methods; GradAlign's weight grows with ε as its authors give it (Andriushchenko & Flammarion 2020)."""
    weight = 0.2 if epsilon < 0.05 else 2.0
    return (
        Way(call="plain"),
        Way(call="fgsm"),
        Way(call="fgsm", watched=True),
        Way(call="fgsm-rs"),
        Way(call="n-fgsm"),
        Way(call=f"grad-align(weight={weight:g})"),
        Way(call="free(replays=4)", replays=4),
        Way(call="pgd(steps=5)"),
        Way(call="trades(steps=5)"),
        Way(call="mart(steps=5)"),
        Way(call="awp(method='n-fgsm')"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is trained and tested."""

    images: int = 10_000
    epochs: int = 10
    tested: int = 256


@cache
def images() -> tuple[Tensor, Tensor]:
    """Return the training images and their classes, in a random order: the file is sorted."""
    x, y = decoded(DATA / IMAGES)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


def course(way: Way, epsilon: float, size: Size) -> Hardening:
    """Return a training at its beginning."""
    x, y = images()
    return st.hardening(
        st.Model(nn.Sequential(Centred(), small_resnet())),
        (x[: size.images], y[: size.images]),
        st.Linf(epsilon),
        method=way.call,
        epochs=max(1, size.epochs // way.replays),
        batch_size=BATCH,
        lr=0.15,
        held_out=0.0,
        augment="crop-flip",
        watch="sentinel" if way.watched else None,
    )


def price(first: Way, second: Way, epsilon: float, steps: int) -> float:
    """Return the processor's time for steps of the first way over those of the second; the two take turns."""
    size = Size(images=BATCH * 16, epochs=(steps + 20) // 16 + 4)
    loops = [course(way, epsilon, size) for way in (first, second)]
    spent = [0.0, 0.0]
    for number in range(steps + 10):
        for place in (0, 1) if number % 2 else (1, 0):
            begin = time.process_time()
            next(loops[place])
            # The first steps make buffers.
            spent[place] += time.process_time() - begin if number >= 10 else 0.0
    return spent[0] / spent[1]


def line(way: Way, shown: str, epsilon: float, size: Size) -> tuple[str, ...]:
    """Train one way, attack what it made, and return the line of the table."""
    loop, spent, backwards, steps = course(way, epsilon, size), 0.0, 0, 0
    while not loop.ended:
        begin = time.process_time()
        step = next(loop)
        spent += time.process_time() - begin
        backwards, steps = backwards + step.backwards, steps + 1
    seen = "; ".join(f"step {seen.step + 1}: {seen.done.partition('(')[0]}" for seen in loop.seen)
    network = loop.network.eval()
    shares = [*_attacked(network, epsilon, size.tested), _audited(network, epsilon, size.tested)]
    numbers = [f"{100 * share:.1f}" for share in shares]
    found = (way.shown, shown, *numbers, f"{spent:.0f}", f"{backwards / steps:.1f}", seen)
    print(" | ".join(found), file=sys.stderr, flush=True)
    return found


def _tested(count: int) -> tuple[Tensor, Tensor]:
    source = open_data(str(DATA / CIFAR))
    ids = select(source, sample=count, seed=0)
    return source.fetch(ids), source.labels[ids]


def _attacked(network: nn.Module, epsilon: float, count: int) -> list[float]:
    """Return accuracy at x, under FGSM, and under ten runs of fifty steps."""
    model, (x, y), budget = st.Model(network), _tested(count), st.Linf(epsilon)
    jumped = st.fgsm(model, x, y, budget, objective="ce")
    shares = [float((model.logits(at).argmax(1) == y).double().mean()) for at in (x, jumped)]
    found = st.attack("pgd(steps=50, step=0.1, restarts=10)", model, x, y, budget, objective="ce")
    return [*shares, 1 - float(found.won.double().mean())]


def _audited(network: nn.Module, epsilon: float, count: int) -> float:
    found = st.audit(st.Model(network), _tested(count), st.Linf(epsilon), allow_chance=True, diagnose=False)
    return found.robust_accuracy


def hardening(effort: float = 1.0, only: tuple[str, ...] = (), budgets: tuple[str, ...] = ()) -> Result:
    """Measure the price of steps, then train and attack every way at both budgets."""
    size = Size() if effort >= 1 else Size(images=2_000, epochs=4, tested=32)
    note = NOTE.format(
        count=f"{size.images:,}", epochs=size.epochs, tested=size.tested, threads=torch.get_num_threads()
    )
    if not (DATA / IMAGES).exists():
        return Result(title="Hardening on CIFAR-10", note=f"Not measured: {IMAGES} is not here.", rows=())
    steps = 300 if effort >= 1 else 40
    fgsm = Way(call="fgsm")
    rows = tuple(
        Row(what=f"a step of {what}", against="one of `fgsm`", value=price(way, fgsm, 8 / 255, steps), target=target)
        for what, way, target in (
            ("`n-fgsm`", Way(call="n-fgsm"), N_FGSM),
            ("`fgsm` under the sentinel", Way(call="fgsm", watched=True), SENTINEL),
        )
    )
    print(rows, file=sys.stderr, flush=True)
    lines = tuple(
        line(way, shown, epsilon, size)
        for shown, epsilon in BUDGETS
        if not budgets or shown in budgets
        for way in ways(epsilon)
        if not only or way.call.partition("(")[0] in only
    )
    return Result(title="Hardening on CIFAR-10", note=note, rows=rows, table=Table(header=HEADER, lines=lines))


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of some methods or budgets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hardening", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="names of methods; all if left out")
    parser.add_argument(
        "--budgets", nargs="*", default=[], choices=[shown for shown, _ in BUDGETS], help="both if left out"
    )
    parser.add_argument("--quick", action="store_true", help="a sixth of the images, a third of the epochs")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    found = hardening(0.2 if asked.quick else 1.0, tuple(asked.only), tuple(asked.budgets))
    print(as_markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
