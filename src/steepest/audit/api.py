"""Audit in one call: data in, records and numbers out, resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice
from steepest.audit.assurance import assure as follow_up
from steepest.audit.assurance import require_answers
from steepest.audit.cascade import Cascade
from steepest.audit.contract import Plan
from steepest.audit.data import Source, open_data, select
from steepest.audit.fingerprints import describe, ids_digest
from steepest.audit.presets import preset_of, rungs_of
from steepest.audit.run import begin, work
from steepest.audit.store import RunFolder
from steepest.audit.subject import Subject, aimed, prepare
from steepest.audit.tally import tally
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress, Silent
from steepest.basis.version import VERSION
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.models.contract import Objective
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
    model: Model | Network | str | Path,
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
    assure: int = 0,
    allow_chance: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> AuditRun:
    """Measure how many examples stay right under a budget: an upper bound on robust accuracy, with its cost.

    Stages run in order of cost on the examples that no earlier stage broke; the model is asked again about every
    success. Finished shards survive any interruption: the same call with the same `out` continues.

    Args:
        model: a `Model`, a bare module that takes inputs in [0, 1], or the path of a model file for `st.load`.
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
        assure: so many survivors, drawn at random, meet the full `autoattack` afterwards (its version "rand" where the
            model is random); the summary's "assured" then says below what robust accuracy it would not go, with 95 %
            confidence. With 60 and no success: 4.9 % of the survivors lower.
        allow_chance: go on although the clean accuracy is what guessing gives.
        command: the text that the report gives to repeat the run.
        progress: told what happens; silent if left out.

    Raises:
        UsageError, DataError, ModelError: what was asked, the data or the model do not fit; nothing is written.
        IncompleteError: no space is left; what is finished is kept.
    """
    source = open_data(data, labels=labels, resize=resize)
    chosen = objective_of(objective) if target is None else Targeted(objective, target)
    ids = _attackable(source, select(source, limit=limit, sample=sample, seed=seed), chosen)
    subject = prepare(model, source, ids, device, allow_chance=allow_chance)
    subject = subject if target is None else aimed(subject, target)
    budgets = _budgets(budget, (len(source), *source.shape))
    epsilons, factors = _grid(preset_of(preset).factors, [one.rows(ids) for one in budgets])
    rungs, left_out = rungs_of(attacks, preset, budgets[-1], subject.model.facts.answers)
    subject = replace(subject, notes=(*subject.notes, *left_out))
    cascade = Cascade(
        model=subject.model,
        budgets=budgets,
        epsilons=epsilons,
        rungs=rungs,
        objective=chosen,
        factors=torch.tensor(factors, dtype=torch.float64),
        seed=seed,
    )
    plan = Plan(
        model=subject.model.facts.sha256,
        data=source.sha256(),
        input=subject.usage(),
        ids_hash=ids_digest(subject.ids),
        count=len(subject.ids),
        budgets=tuple(describe(one) for one in budgets),
        objective=objective if isinstance(objective, str) else describe(chosen),
        preset=preset if attacks is None else "custom",
        attacks=tuple(rung.text for rung in rungs),
        factors=factors,
        target=target,
        seed=seed,
        save=save,
        assure=assure,
        version=VERSION,
        batch_size=batch_size or 0,
    )
    return _carried_out(out, subject, cascade, plan, command, progress or Silent())


def open_run(path: str | Path) -> AuditRun:
    """Return a finished run from its folder.

    Raises:
        UsageError: the folder is not a run.
        IncompleteError: shards are missing, or the sample of survivors.
    """
    folder = RunFolder(Path(path))
    manifest = folder.manifest()
    shards = manifest["shards"]
    return AuditRun(folder.path, tally(folder.table(shards), folder.ledger(shards), manifest, folder.assured()))


def _carried_out(
    out: str | Path | None, subject: Subject, cascade: Cascade, plan: Plan, command: str | None, progress: Progress
) -> AuditRun:
    """Do what is not done yet, and open the run."""
    require_answers(plan.assure, subject.model.facts.answers)
    folder = RunFolder(Path(out or tempfile.mkdtemp(prefix="steepest-")))
    subject.tell(progress)
    plan = begin(folder, subject, cascade, plan, command)
    work(folder, subject, cascade, plan, progress)
    follow_up(folder, subject, cascade, plan, progress)
    return open_run(folder.path)


def _attackable(source: Source, ids: Tensor, objective: Objective) -> Tensor:
    """Leave out what already has the label that the attacks aim at."""
    if not isinstance(objective, Targeted):
        return ids
    target = torch.as_tensor(objective.target).expand(len(source)).cpu()
    left = ids[source.labels[ids] != target[ids]]
    if not left.numel():
        raise UsageError("no example is left to attack: all have the target's label. Give another target.")
    return left


def _grid(factors: Sequence[float], budgets: Sequence[Budget]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the audited ε, and the curve's grid with each of them on it, in units of the largest."""
    epsilons = tuple(largest(one.epsilon) for one in budgets)
    audited = [epsilon / epsilons[-1] for epsilon in epsilons if epsilons[-1] > 0]
    return epsilons, tuple(sorted({round(factor, 12): factor for factor in (*audited, *factors)}.values()))


def _budgets(budget: Budget | Sequence[Budget], shape: tuple[int, ...]) -> tuple[Budget, ...]:
    """Return the budgets in rising order; a success at one must be a success at the next, so they must be nested."""
    given = list(budget) if isinstance(budget, Sequence) else [budget]
    if not given:
        raise UsageError("no budget was given: give one such as st.Linf(8 / 255), or several sizes of one kind.")
    for one in given:
        if not hasattr(one, "fitted"):
            raise UsageError(f"budget={one!r} is not a budget: give one such as st.Linf(8 / 255), st.L2(0.5).")
    fitted = sorted((one.fitted(shape) for one in given), key=lambda one: largest(one.epsilon))
    for small, large in pairwise(fitted):
        alike = describe(small.scaled(0.0)) == describe(large.scaled(0.0))
        if not alike or bool((torch.as_tensor(small.epsilon) > torch.as_tensor(large.epsilon)).any()):
            raise UsageError(
                f"{small!r} and {large!r} are not sizes of one kind: with several budgets each must hold the one "
                "before. Audit them one by one."
            )
    return tuple(fitted)
