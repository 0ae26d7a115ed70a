"""Audit in one call: data in, records and numbers out, resumable."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

import steepest
from steepest.attacks.api import ObjectiveChoice
from steepest.audit import measure
from steepest.audit.cascade import Cascade
from steepest.audit.contract import Plan
from steepest.audit.data import open_data, pixel_hash, select
from steepest.audit.fingerprints import describe, ids_digest
from steepest.audit.outcome import Outcome
from steepest.audit.presets import parse_attacks, preset_of, stages_of
from steepest.audit.store import RunFolder
from steepest.audit.subject import Subject, prepare
from steepest.audit.tally import tally
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress, Silent
from steepest.budgets.catalogue import unit_of
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.models.model import Model, Network
from steepest.models.objectives import Targeted, objective_of

GALLERY = 48
"""How many pictures a report can show; each shard keeps its part."""


@final
@dataclass(frozen=True, slots=True)
class AuditRun:
    """A finished audit: a folder on disk and its summary.

    Attributes:
        folder: manifest.json, results/, artifacts/.
        summary: what `steepest audit --json` prints.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> run = st.audit(st.Model(net.eval()), "digits", st.Linf(0.1), preset="quick", limit=15, allow_chance=True)
    >>> run.robust_accuracy <= run.clean_accuracy
    True
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def clean_accuracy(self) -> float:
        """Share of examples that the model gets right."""
        return float(self.summary["clean_accuracy"])

    @property
    def robust_accuracy(self) -> float:
        """Share of examples that nothing tried broke: at most this robust."""
        return float(self.summary["robust_accuracy"])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the robust accuracy."""
        low, high = self.summary["robust_interval"]
        return float(low), float(high)

    def records(self) -> list[dict[str, Any]]:
        """Return one dict per example; the fields are described at `audit.contract.RECORD`."""
        manifest = RunFolder(self.folder).manifest()
        return list(RunFolder(self.folder).table(manifest["shards"]).to_pylist())


def audit(
    model: Model | Network,
    data: object,
    budget: Budget | Sequence[Budget],
    *,
    preset: str = "standard",
    attacks: str | None = None,
    objective: ObjectiveChoice = "scaled-ce",
    target: int | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    sample: int | None = None,
    labels: Sequence[str] | None = None,
    resize: tuple[int, int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    save: bool = False,
    allow_chance: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> AuditRun:
    """Measure how many examples stay right under a budget: an upper bound on robust accuracy, with its cost.

    Stages run in order of cost on the examples that no earlier stage broke; the model is asked again about every
    success. Finished shards survive any interruption: the same call with the same `out` continues.

    Args:
        model: a `Model`, or a bare module that takes inputs in [0, 1].
        data: a path, "digits", tensors (x, y), a torch Dataset or DataLoader.
        budget: one, or several sizes of one kind; the headline is the largest.
        preset: "quick" or "standard".
        attacks: catalogue calls separated by commas, instead of the preset's.
        objective: what is ascended: a name, an object, or a function (outputs, y) → [N].
        target: attack towards this class; examples of that class are left out.
        out: the run's folder; a temporary one if left out.
        limit, sample: the first examples, or a seeded draw with each class in proportion.
        labels: class names in the order of the model's outputs.
        resize: (height, width) for images of differing sizes.
        seed: of all random draws; records depend on nothing else that is random.
        batch_size: measured once if left out.
        device: moves the model there first.
        save: keep every adversarial example found in artifacts/.
        allow_chance: go on although the clean accuracy is what guessing gives.
        command: the text that the report gives to repeat the run.
        progress: told what happens; silent if left out.

    Raises:
        UsageError, DataError, ModelError: what was asked, the data or the model do not fit; nothing is written.
        IncompleteError: no space is left; what is finished is kept.
    """
    seen = progress or Silent()
    chosen_attacks = parse_attacks(attacks) if attacks else preset_of(preset).attacks
    source = open_data(data, labels=labels, resize=resize)
    ids = select(source, limit=limit, sample=sample, seed=seed)
    ids = ids if target is None else ids[source.labels[ids] != target]
    if not ids.numel():
        raise UsageError(f"no example is left to attack: all have the target's label {target}. Give another --target.")
    subject = prepare(model, source, ids, device, allow_chance=allow_chance)
    budgets = _budgets(budget, (len(source), *source.shape))
    goal = Targeted(objective, target) if target is not None else objective_of(objective)  # type: ignore[arg-type]
    stages = tuple(stages_of(chosen_attacks))
    plan = Plan(
        model=subject.model.facts.sha256,
        data=source.sha256(),
        input=subject.usage(),
        ids_hash=ids_digest(ids),
        count=len(ids),
        budgets=tuple(describe(one) for one in budgets),
        objective=describe(objective),
        preset=preset if attacks is None else "custom",
        attacks=tuple(recipe.call for _, recipe in stages),
        factors=preset_of(preset).factors,
        target=target,
        seed=seed,
        save=save,
        version=steepest.__version__,
        batch_size=batch_size or 0,
    )
    folder = RunFolder(Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="steepest-")))
    manifest = folder.claim(plan)
    if manifest is None:
        threads = torch.get_num_threads()
        size = batch_size or measure.batch_size(subject.model, *subject.first, goal)
        plan = replace(plan, batch_size=size, threads=threads)
        asked = command or _as_python(subject, budgets[-1], plan)
        manifest = _manifest(folder, subject, budgets, plan, asked)
        folder.begin(manifest)
    else:
        plan = replace(plan, batch_size=manifest["plan"]["batch_size"], threads=manifest["plan"]["threads"])
    cascade = Cascade(
        model=subject.model,
        budgets=tuple(budgets),
        stages=stages,
        objective=goal,
        factors=torch.tensor(plan.factors, dtype=torch.float64),
        seed=seed,
    )
    _run(folder, subject, cascade, plan, seen)
    return _opened(folder)


def open_run(path: str | Path) -> AuditRun:
    """Return a finished run from its folder.

    Raises:
        UsageError: the folder is not a run.
        IncompleteError: shards are missing.
    """
    return _opened(RunFolder(Path(path)))


def _opened(folder: RunFolder) -> AuditRun:
    manifest = folder.manifest()
    shards = manifest["shards"]
    return AuditRun(folder.path, tally(folder.table(shards), folder.ledger(shards), manifest))


def _budgets(budget: Budget | Sequence[Budget], shape: tuple[int, ...]) -> list[Budget]:
    given = list(budget) if isinstance(budget, Sequence) else [budget]
    if not given:
        raise UsageError("no budget was given: give one such as st.Linf(8 / 255), or several sizes of one kind.")
    if len({type(one) for one in given}) > 1:
        raise UsageError(
            f"budgets {given} are of different kinds: audit them one by one; several sizes of one are fine."
        )
    return sorted((one.fitted(shape) for one in given), key=lambda one: largest(one.epsilon))


def _run(folder: RunFolder, subject: Subject, cascade: Cascade, plan: Plan, progress: Progress) -> None:
    """Compute the shards that are not there yet, one after another."""
    digest, shards = plan.digest(), torch.split(subject.ids, plan.batch_size)
    missing = [number for number in range(len(shards)) if not folder.done(number, digest)]
    finished = sum(len(shards[number]) for number in range(len(shards)) if number not in set(missing))
    if finished:
        progress.say(f"continuing: {finished} of {len(subject.ids)} examples are done already")
    progress.begin("audit", len(subject.ids))
    progress.advance(finished)
    pictures = -(-GALLERY // len(shards))
    held = 0
    with _threads(plan.threads):
        for number in missing:
            ids = shards[number]
            x, y = subject.batch(ids)
            here = replace(cascade, budgets=tuple(budget.rows(ids) for budget in cascade.budgets))
            outcome = here.run(x, y, ids.to(x.device))
            _keep_pictures(folder, number, outcome, ids, pictures, everything=plan.save)
            columns = outcome.columns(ids, pixel_hash(x.cpu()), plan.seed)
            folder.commit(number, columns, outcome.ledger, digest)
            held += int((~outcome.broken).sum())
            progress.advance(len(ids), f"unbroken so far: {held}")
    progress.end()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use the thread count of the plan: kernels split their sums by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_pictures(
    folder: RunFolder, number: int, outcome: Outcome, ids: Tensor, pictures: int, *, everything: bool
) -> None:
    """Keep some successes for the report's gallery, and all of them if asked to."""
    attacked = [row for row, by in enumerate(outcome.broken_by) if by not in (None, "clean")]
    for name, rows in (("gallery", attacked[:pictures]), ("adversarial", attacked if everything else [])):
        if rows:
            index = torch.tensor(rows)
            folder.save_arrays(
                f"{name}-{number:05d}",
                {
                    "ids": ids[index].numpy(),
                    "labels": outcome.y.cpu()[index].numpy(),
                    "clean": outcome.region.x.cpu()[index].float().numpy(),
                    "images": outcome.point.cpu()[index].float().numpy(),
                    "predictions": outcome.prediction.cpu()[index].numpy(),
                },
            )


def _manifest(
    folder: RunFolder, subject: Subject, budgets: Sequence[Budget], plan: Plan, command: str
) -> dict[str, Any]:
    source, facts = subject.source, asdict(subject.model.facts)
    names = source.class_names
    return {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "run": str(folder.path),
        "plan": asdict(plan),
        "plan_hash": plan.digest(),
        "shards": -(-len(subject.ids) // plan.batch_size),
        "epsilons": [largest(budget.epsilon) for budget in budgets],
        "budget_unit": unit_of(budgets[-1]),
        "model": facts,
        "data": {
            "source": source.name,
            "kind": source.kind,
            "sha256": plan.data,
            "n": len(subject.ids),
            "of": len(source),
            "shape": list(source.shape),
            "class_names": list(names) if names else None,
            "ids": subject.ids.tolist() if len(subject.ids) < len(source) else None,
            "notes": list(source.notes),
        },
        "box": repr(subject.model.box),
        "notes": list(subject.notes),
        "measured": {"batch_size": plan.batch_size, "threads": plan.threads},
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow", "onnxruntime")}
        | {"steepest": steepest.__version__, "python": platform.python_version()},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "device": subject.device.type
            if subject.device.type == "cpu"
            else torch.cuda.get_device_name(subject.device),
        },
    }


def _as_python(subject: Subject, budget: Budget, plan: Plan) -> str:
    return (
        f"st.audit({subject.model!r}, {subject.source.name!r}, st.{budget!r}, preset={plan.preset!r}, "
        f"seed={plan.seed}, batch_size={plan.batch_size})"
    )
