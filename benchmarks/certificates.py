"""What certificates prove and attacks break, on the same examples: how wide the bracket is, and what it costs.

`python -m benchmarks certificates` measures all models; `python -m benchmarks.certificates` has options.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import steepest as st
from benchmarks.contract import Result, Row, Table
from benchmarks.rendering import as_markdown
from benchmarks.subjects import DATA, MNIST, SUBJECTS
from steepest.audit.data import open_data
from steepest.audit.data.selection import select
from steepest.certify.library import CERTIFIERS

CERTIFIED_ERROR, ATTACKED_ERROR = 0.058, 0.041
"""Of `mnist_kw_eps01` at ε = 0.1: at most and at least (Wong & Kolter 2018)."""

DECIDED = 0.8
SECONDS = 120.0
"""CROWN on 100 examples of a CNN of 5,000 activations, on two cores."""

ATTACKS = ("apgd(steps=100)", "apgd(steps=50, targets=9)")

NOTE = (
    "Certifiers are asked about the examples that are right, each about what those before it left open; then "
    "`apgd(steps=100)` and `apgd(steps=50, targets=9)` attack what is not proven, and splitting has the rest. Numbers "
    "are examples, those of a certifier with the ones before it; seconds are of the clock for all that it was asked "
    "about, {threads} thread(s). ε is in the units of the pixels. 'decided' is broken, wrong or proven."
)
HEADER = ("model", "ε", "N", "right", "not broken", "proven by", "…", "s", "decided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its examples and the certifiers that are asked, the weaker first.

    Attributes:
        right: so many examples that are right at x, of a draw with seed 0; 0: all of the data set, right or wrong.
        first: the first ones instead of a draw.
    """

    model: str
    epsilons: tuple[float, ...]
    shown: tuple[str, ...]
    methods: tuple[str, ...]
    right: int = 100
    first: bool = False


CASES = (
    Case(model="mnist_kw_eps01", epsilons=(0.1,), shown=("0.1",), methods=("ibp", "crown"), right=0),
    *(
        Case(
            model=name,
            epsilons=(1 / 255, 2 / 255),
            shown=("1/255", "2/255"),
            methods=("ibp", "crown", "alpha-crown", "splitting(seconds=10)"),
        )
        for name in ("sri_resnet_b", "oval21_cifar_base_kw")
    ),
    Case(
        model="mnistfc_256x2",
        epsilons=(0.03, 0.05),
        shown=("0.03", "0.05"),
        methods=("crown", "alpha-crown", "splitting(seconds=120)"),
        right=25,
        first=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """What one case came to at one ε."""

    case: Case
    shown: str
    count: int
    right: int
    unbroken: int
    proven: dict[str, tuple[int, float]]

    @property
    def decided(self) -> int:
        return self.count - self.unbroken + max(found for found, _ in self.proven.values())

    def lines(self) -> list[tuple[str, ...]]:
        head = (self.case.model, self.shown, str(self.count), str(self.right), str(self.unbroken))
        last = list(self.proven)[-1]
        return [
            (*(head if not number else ("",) * 5), name, str(found), f"{seconds:.0f}")
            + ((str(self.decided),) if name == last else ("",))
            for number, (name, (found, seconds)) in enumerate(self.proven.items())
        ]


def certificates(effort: float = 1.0) -> Result:
    """All models; a smaller effort takes fewer examples."""
    return result([found for case in CASES for found in measured(case, effort)], speed())


def measured(case: Case, effort: float = 1.0) -> list[Bracket]:
    """Attack and certify one model at every ε; none where its files are missing."""
    model, x, y = _opened(case, effort)
    if model is None:
        print(f"{case.model} is skipped: {DATA} lacks it", file=sys.stderr)
        return []
    return [_bracket(case, model, x, y, *size) for size in zip(case.epsilons, case.shown, strict=True)]


def _opened(case: Case, effort: float) -> tuple[st.Model | None, Tensor, Tensor]:
    subject = next((each for each in SUBJECTS if each.name == case.model), None)
    data = subject.files[0] if subject else MNIST
    if not (DATA / f"{case.model}.onnx").exists() or not (DATA / data).exists():
        return None, torch.zeros(0), torch.zeros(0)
    model = subject.opened() if subject else st.load(DATA / f"{case.model}.onnx")
    source = open_data(DATA / data)
    wanted = round((case.right or len(source)) * effort)
    ids = (
        select(source, limit=4 * wanted) if case.first else select(source, sample=4 * wanted if case.right else wanted)
    )
    x, y = source.fetch(ids).reshape(len(ids), *(model.facts.input_shape or source.shape)), source.labels[ids]
    if case.right:
        kept = (model.logits(x).argmax(1) == y).nonzero().squeeze(1)
        kept = kept if case.first else kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))]
        x, y = x[kept[:wanted]], y[kept[:wanted]]
    return model, x, y


def _bracket(case: Case, model: st.Model, x: Tensor, y: Tensor, epsilon: float, shown: str) -> Bracket:
    print(f"  {case.model} at {shown} ...", file=sys.stderr, flush=True)
    budget = st.Linf(epsilon)
    logits = torch.cat([model.logits(part) for part in x.split(500)])
    left = (logits.argmax(1) == y).nonzero().squeeze(1)
    right, broken = len(left), 0
    proven: dict[str, tuple[int, float]] = {}

    def ask(name: str) -> None:
        nonlocal left
        prover = CERTIFIERS.build(name).prepared(model, tuple(x.shape[1:]))
        begin = time.perf_counter()
        found = [prover.lower(st.Region(budget, model.box, x[part]), y[part]) > 0 for part in left.split(50)]
        left = left[~torch.cat(found)] if found else left
        proven[name] = (right - broken - len(left), time.perf_counter() - begin)
        print(f"    {name}: {proven[name]}", file=sys.stderr, flush=True)

    for name in case.methods:
        if name.startswith("splitting"):
            continue
        ask(name)
    for call in ATTACKS:
        won = [st.attack(call, model, x[part], y[part], budget).won for part in left.split(250)]
        kept = left[~torch.cat(won)] if won else left
        broken, left = broken + len(left) - len(kept), kept
    print(f"    broken: {broken}", file=sys.stderr, flush=True)
    for name in case.methods:
        if name.startswith("splitting"):
            ask(name)
    return Bracket(case=case, shown=shown, count=len(y), right=right, unbroken=right - broken, proven=proven)


def speed() -> Row:
    """CROWN on a CNN of 5,220 activations with weights as they are drawn, 100 examples."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10)),
    ).eval()
    model, x = st.Model(network, box=(0, 1)), torch.rand(100, 3, 32, 32)
    y = model.logits(x).argmax(1)
    begin = time.perf_counter()
    prover = CERTIFIERS.build("crown").prepared(model, (3, 32, 32))
    prover.lower(st.Region(st.Linf(4 / 255), model.box, x), y)
    took = time.perf_counter() - begin
    return Row(what="crown, 100 examples, 5,220 activations", against="the clock", value=took, target=SECONDS, unit="s")


def result(found: list[Bracket], *rows: Row) -> Result:
    """Return the table, and the promises about it."""
    made = list(rows)
    for each in found:
        if each.case.model == "mnist_kw_eps01":
            proven = max(count for count, _ in each.proven.values())
            certified, attacked = 1 - proven / each.count, 1 - each.unbroken / each.count
            made.append(
                Row(what="certified error", against=each.case.model, value=certified, target=CERTIFIED_ERROR, unit="")
            )
            made.append(
                Row(
                    what="attacked error",
                    against=each.case.model,
                    value=attacked,
                    target=ATTACKED_ERROR,
                    at_least=True,
                    unit="",
                )
            )
        if each.case.model == "mnistfc_256x2":
            share = each.decided / each.count
            what = f"share decided at {each.shown}"
            made.append(Row(what=what, against=each.case.model, value=share, target=DECIDED, at_least=True, unit=""))
    lines = tuple(line for each in found for line in each.lines())
    return Result(
        title="Certificates and attacks on the same examples",
        note=NOTE.format(threads=torch.get_num_threads()),
        rows=tuple(made),
        table=Table(header=HEADER, lines=lines),
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.certificates", description=(__doc__ or "").split("\n")[0]
    )
    names = [case.model for case in CASES]
    parser.add_argument("--models", nargs="*", choices=names, default=names, help="which ones; all if left out")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, 1 if left out")
    parser.add_argument("--share", type=float, default=1.0, help="of the examples")
    parser.add_argument("--speed", action="store_true", help="also CROWN on a CNN of 5,220 activations")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    found = [each for case in CASES if case.model in asked.models for each in measured(case, asked.share)]
    print(as_markdown(result(found, *([speed()] if asked.speed else []))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
