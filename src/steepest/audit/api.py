"""Audit in one call: data in, records and numbers out, resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice
from steepest.audit.cascade import Cascade
from steepest.audit.contract import Plan
from steepest.audit.data import Source, open_data, select
from steepest.audit.fingerprints import describe, ids_digest
from steepest.audit.presets import parse_attacks, preset_of, stages_of
from steepest.audit.run import begin, work
from steepest.audit.store import RunFolder
from steepest.audit.subject import aimed, prepare
from steepest.audit.tally import tally
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress, Silent
from steepest.basis.version import VERSION
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.models.model import Model, Network
from steepest.models.objectives import Targeted, objective_of


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
        labels, resize: class names in the order of the model's outputs; (height, width) for images of many sizes.
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
    source = open_data(data, labels=labels, resize=resize)
    ids = select(source, limit=limit, sample=sample, seed=seed)
    subject = prepare(model, source, _attackable(source, ids, target), device, allow_chance=allow_chance)
    subject = subject if target is None else aimed(subject, target)
    budgets = _budgets(budget, (len(source), *source.shape))
    cascade = Cascade(
        model=subject.model,
        budgets=budgets,
        stages=stages_of(parse_attacks(attacks) if attacks else preset_of(preset).attacks),
        objective=objective_of(objective) if target is None else Targeted(objective, target),
        factors=torch.tensor(preset_of(preset).factors, dtype=torch.float64),
        seed=seed,
    )
    plan = Plan(
        model=subject.model.facts.sha256,
        data=source.sha256(),
        input=subject.usage(),
        ids_hash=ids_digest(subject.ids),
        count=len(subject.ids),
        budgets=tuple(describe(one) for one in budgets),
        objective=describe(objective),
        preset=preset if attacks is None else "custom",
        attacks=tuple(recipe.call for _, recipe in cascade.stages),
        factors=preset_of(preset).factors,
        target=target,
        seed=seed,
        save=save,
        version=VERSION,
        batch_size=batch_size or 0,
    )
    folder = RunFolder(Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="steepest-")))
    subject.tell(seen)
    plan = begin(folder, subject, cascade, plan, command)
    work(folder, subject, cascade, plan, seen)
    return open_run(folder.path)


def open_run(path: str | Path) -> AuditRun:
    """Return a finished run from its folder.

    Raises:
        UsageError: the folder is not a run.
        IncompleteError: shards are missing.
    """
    folder = RunFolder(Path(path))
    manifest = folder.manifest()
    shards = manifest["shards"]
    return AuditRun(folder.path, tally(folder.table(shards), folder.ledger(shards), manifest))


def _attackable(source: Source, ids: Tensor, target: int | None) -> Tensor:
    """Leave out what already has the label that the attacks aim at."""
    left = ids if target is None else ids[source.labels[ids] != target]
    if not left.numel():
        raise UsageError(f"no example is left to attack: all have the target's label {target}. Give another target.")
    return left


def _budgets(budget: Budget | Sequence[Budget], shape: tuple[int, ...]) -> tuple[Budget, ...]:
    given = list(budget) if isinstance(budget, Sequence) else [budget]
    if not given:
        raise UsageError("no budget was given: give one such as st.Linf(8 / 255), or several sizes of one kind.")
    if len({type(one) for one in given}) > 1:
        raise UsageError(
            f"budgets {given} are of different kinds: audit them one by one; sizes of one kind may be many."
        )
    return tuple(sorted((one.fitted(shape) for one in given), key=lambda one: largest(one.epsilon)))
