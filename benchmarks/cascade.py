"""The cascade of the standard preset against AutoAttack: the time of the attacks, and what either leaves unbroken.

`python -m benchmarks cascade` measures all models; `python -m benchmarks.cascade` has options for trying things.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import steepest as st
from benchmarks.contract import Result, Row, Table
from benchmarks.rendering import as_markdown
from benchmarks.subjects import DATA, SUBJECTS, Subject
from steepest.attacks.contract import Problem
from steepest.attacks.ranking import nearest_classes
from steepest.attacks.recipes import ATTACKS
from steepest.audit.contract import Stage
from steepest.audit.presets import PRESETS
from steepest.audit.rungs import Rung
from steepest.audit.store import RunFolder
from steepest.models.contract import Evaluation

FASTER, MISSED = 20.0, 0.002
"""Promised: so many times less time over all models together, at most this share of the examples missed on any."""

UNCOUNTED = ("curve",)
"""Rows of the ledger that are no attack: an audit pays for them whatever it is told to attack with."""

AT_X = ("clean", "curve")

NOTE = (
    '`st.audit` with preset `standard` against `attacks="autoattack", precision="exact"`, on the same {count} examples '
    "of each data set (seed 0), one right after the other on {threads} thread(s). Seconds and passes are the attacks' "
    "in the run's ledger; loading, the FGSM curve and diagnosis are not counted, the answer and the gradient at x are "
    "the cascade's. F and B are forwards and backwards per drawn example. 'missed' is robust examples of the cascade "
    "less those of AutoAttack; in parentheses what only AutoAttack broke (+) and what only the cascade broke (−). "
    "Attacks: {attacks}."
)
ABLATED = (
    "The preset without each of its rungs, with other losses in the first ascent, with other orders of the classes, "
    "against the same AutoAttack; columns as there."
)
LOSSES = ("ce", "margin", "dlr")

HEADER = (
    "model", "ε", "clean", "AutoAttack: robust", "s", "F", "B", "cascade: robust", "s", "F", "B", "times faster",
    "missed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What an audit is told to attack with: attacks by name, or rungs, with an order of the classes of its own."""

    name: str
    attacks: str | None = None
    rungs: tuple[Rung, ...] = ()
    order: Callable[[Tensor, Tensor], Tensor] | None = None
    precision: str = "auto"

    @contextmanager
    def preset(self) -> Iterator[str]:
        """Lend the audit these rungs as a preset, and this order."""
        rungs = {self.name: replace(PRESETS["standard"], name=self.name, rungs=self.rungs)} if self.rungs else {}
        ranked = patch("steepest.audit.cascade.nearest_classes", self._ranked) if self.order else nullcontext()
        with patch.dict(PRESETS, rungs), ranked:
            yield self.name if rungs else "standard"

    def _ranked(self, problem: Problem) -> tuple[Tensor, Tensor, Evaluation]:
        classes, reach, found = nearest_classes(problem)
        assert self.order is not None
        order = self.order(found.outputs.gather(1, classes), problem.stream.uniform(0, tuple(classes.shape[1:])))
        return classes.gather(1, order), reach.gather(1, order), found


ORDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "likeliest": lambda outputs, draw: outputs.argsort(dim=1, descending=True),
    "random": lambda outputs, draw: draw.argsort(dim=1),
}

REFERENCE = Contender(name="autoattack", attacks="autoattack", precision="exact")
CASCADE = Contender(name="standard", rungs=PRESETS["standard"].rungs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One audit of one model.

    Attributes:
        digest: of model, examples, budget and seed; what may be compared has the same.
        robust: ids of the examples that nothing broke.
        seconds, forwards, backwards: of the attacks, over all examples.
        stages: the whole ledger.
    """

    digest: str
    count: int
    clean: int
    robust: list[int]
    seconds: float
    forwards: int
    backwards: int
    attacks: list[str]
    batch_size: int
    threads: int
    stages: list[dict[str, Any]]


def cascade(effort: float = 1.0) -> Result:
    """Every model with 1,000 examples at full effort: the cascade, then AutoAttack."""
    return result([compared(subject, round(1000 * effort)) for subject in present(SUBJECTS)])


def present(subjects: Sequence[Subject]) -> list[Subject]:
    """Leave out the models whose files are not here, and say so."""
    for subject in subjects:
        if subject.missing:
            print(f"{subject.name} is skipped: {DATA} lacks {', '.join(subject.missing)}", file=sys.stderr)
    return [subject for subject in subjects if not subject.missing]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The two audits of a model, made one right after the other."""

    subject: Subject
    reference: Measured
    cascade: Measured

    @property
    def faster(self) -> float:
        return self.reference.seconds / self.cascade.seconds

    @property
    def missed(self) -> int:
        """Examples that the cascade leaves unbroken beyond those of the reference; below 0 if it breaks more."""
        return len(self.cascade.robust) - len(self.reference.robust)

    def line(self) -> tuple[str, ...]:
        """Return the model's line of the table; passes are per example."""
        count, shown = self.cascade.count, [self.subject.name, self.subject.shown, f"{self.cascade.clean}"]
        for side in (self.reference, self.cascade):
            shown += [
                str(len(side.robust)),
                f"{side.seconds:.1f}",
                f"{side.forwards / count:.0f}",
                f"{side.backwards / count:.0f}",
            ]
        theirs, ours = set(self.reference.robust), set(self.cascade.robust)
        apart = f"{self.missed:+d} (−{len(theirs - ours)} +{len(ours - theirs)})"
        return (*shown, f"{self.faster:.1f}", apart)


def compared(
    subject: Subject,
    examples: int,
    contender: Contender = CASCADE,
    keep: Path | None = None,
    device: str | None = None,
) -> Comparison:
    """Audit a model with the contender, then with the reference, or with what `keep` holds of an earlier one."""
    model = subject.opened()
    ours = measured(subject, model, contender, examples, device)
    _store(keep, subject, contender, ours)
    theirs = _stored(keep, subject, ours)
    if theirs is None:
        theirs = measured(subject, model, REFERENCE, examples, device)
        _store(keep, subject, REFERENCE, theirs)
    return Comparison(subject=subject, reference=theirs, cascade=ours)


def measured(
    subject: Subject, model: st.Model, contender: Contender, examples: int, device: str | None = None
) -> Measured:
    """Audit a model, and read what it cost from the run's own ledger."""
    print(f"  {subject.name}: {contender.name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder, contender.preset() as preset:
        run = st.audit(
            model,
            DATA / subject.files[0],
            st.Linf(subject.epsilon),
            attacks=contender.attacks,
            preset=preset,
            precision=contender.precision,
            sample=examples,
            seed=0,
            device=device,
            diagnose=False,
            out=Path(folder) / "run",
        )
        return as_measured(run, from_x=contender.attacks != REFERENCE.attacks)


def as_measured(run: st.AuditRun, *, from_x: bool) -> Measured:
    """Return what a run says of itself.

    Args:
        from_x: what was learnt at x is part of the attack: the clean answer, and of the curve the gradient, by its
            share of the row's passes. AutoAttack asks for its own.
    """
    plan, records = RunFolder(run.folder).manifest()["plan"], run.records()
    named = [plan[key] for key in ("model", "data", "ids_hash", "budgets", "seed")]
    stages = [Stage(**stage) for stage in run.summary["stages"]]
    counted = [stage for stage in stages if stage.name not in (*UNCOUNTED, "clean")]
    if from_x:
        counted += [stage if stage.name == "clean" else _gradient(stage) for stage in stages if stage.name in AT_X]
    return Measured(
        digest=hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        count=len(records),
        clean=sum(record["broken_by"] != "clean" for record in records),
        robust=[row["example_id"] for row in records if not row["broken"] and row["status"] != "nonfinite"],
        seconds=sum(stage.seconds for stage in counted),
        forwards=sum(stage.forwards for stage in counted),
        backwards=sum(stage.backwards for stage in counted),
        attacks=plan["attacks"],
        batch_size=plan["batch_size"],
        threads=plan["threads"],
        stages=run.summary["stages"],
    )


def _gradient(curve: Stage) -> Stage:
    share = 2 * curve.entered / max(1, curve.forwards + curve.backwards)
    return replace(curve, forwards=curve.entered, backwards=curve.entered, seconds=share * curve.seconds)


def _store(keep: Path | None, subject: Subject, contender: Contender, found: Measured) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{subject.name}-{contender.name}.json").write_text(json.dumps(asdict(found)), encoding="utf-8")


def _stored(keep: Path | None, subject: Subject, ours: Measured) -> Measured | None:
    """Return the reference that was kept, if it is about the same model, examples and budget."""
    path = None if keep is None else keep / f"{subject.name}-{REFERENCE.name}.json"
    if path is None or not path.exists():
        return None
    found = Measured(**json.loads(path.read_text(encoding="utf-8")))
    if found.digest != ours.digest:
        print(f"{path} is about another model or other examples: measured again", file=sys.stderr)
        return None
    return found


def result(comparisons: Sequence[Comparison]) -> Result:
    """Return the table, and the promises: the time over all models together, the examples missed on each."""
    title = "The cascade against AutoAttack"
    if not comparisons:
        return Result(title=title, note=f"Not measured: the models and data of `{DATA}` are not here.", rows=())
    theirs = sum(one.reference.seconds for one in comparisons)
    ours = sum(one.cascade.seconds for one in comparisons)
    first = comparisons[0].cascade
    total = ("all", "", "", "", f"{theirs:.1f}", "", "", "", f"{ours:.1f}", "", "", f"{theirs / ours:.1f}", "")
    return Result(
        title=title,
        note=NOTE.format(count=first.count, threads=first.threads, attacks="; ".join(first.attacks)),
        table=Table(header=HEADER, lines=(*(one.line() for one in comparisons), total)),
        rows=(
            Row(
                what="AutoAttack, all models", against="the cascade", value=theirs / ours, target=FASTER, at_least=True
            ),
            *(
                Row(
                    what=f"AutoAttack, {one.subject.name}",
                    against="the cascade",
                    value=one.faster,
                    target=one.subject.faster,
                    at_least=True,
                )
                for one in comparisons
            ),
            *(
                Row(
                    what=f"missed, {one.subject.name}",
                    against="AutoAttack",
                    value=one.missed,
                    target=round(MISSED * one.cascade.count),
                    unit="examples",
                )
                for one in comparisons
            ),
        ),
    )


def variants() -> tuple[Contender, ...]:
    """Return the cascade; without each of its rungs; with other losses in the first ascent; with other orders."""
    rungs = CASCADE.rungs
    without = (
        Contender(name=f"without {left_out.name}", rungs=tuple(rung for rung in rungs if rung is not left_out))
        for left_out in rungs
    )
    losses = (
        Contender(name=f"ascent of {loss}", rungs=tuple(_ascending(rung, loss) for rung in rungs)) for loss in LOSSES
    )
    orders = (Contender(name=f"{name} class first", rungs=rungs, order=order) for name, order in ORDERS.items())
    return (CASCADE, *without, *losses, *orders)


def _ascending(rung: Rung, loss: str) -> Rung:
    if rung.name != "ascent":
        return rung
    return replace(rung, work=ATTACKS.build(rung.work.call.replace("objective=None", f"objective={loss!r}")))


def ablated(
    subjects: Sequence[Subject], examples: int, keep: Path | None, names: Sequence[str] | None = None
) -> Result:
    """Return what every variant of the cascade, or those of some names, costs and leaves unbroken on every model."""
    chosen = [each for each in variants() if names is None or each.name in names]
    with tempfile.TemporaryDirectory() as folder:
        kept = keep or Path(folder)  # one reference for all variants of a model
        lines = tuple(
            (variant.name, *compared(subject, examples, variant, kept).line())
            for subject in subjects
            for variant in chosen
        )
    table = Table(header=("variant", *HEADER), lines=lines)
    return Result(title="Variants of the cascade", note=ABLATED, rows=(), table=table)


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for and print it; nothing is written to RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cascade", description=(__doc__ or "").splitlines()[0])
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="which ones; all if left out")
    parser.add_argument(
        "--examples", type=int, default=1000, help="of each data set, drawn with seed 0; 1000 if left out"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, 1 if left out")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="keeps one JSON per model and contender; AutoAttack's are used again",
    )
    parser.add_argument("--device", help="cpu or cuda; cpu if left out")
    parser.add_argument("--ablate", action="store_true", help="variants of the cascade")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="of these names only, with --ablate")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    subjects = present([subject for subject in SUBJECTS if subject.name in asked.models])
    if asked.ablate:
        found = ablated(subjects, asked.examples, asked.reference, asked.variants)
    else:
        found = result([compared(each, asked.examples, keep=asked.reference, device=asked.device) for each in subjects])
    print(as_markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
