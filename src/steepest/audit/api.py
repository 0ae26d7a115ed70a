"""Audit in one call: data in, records and numbers out, resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from steepest.attacks.api import ObjectiveChoice
from steepest.audit.assurance import assure as follow_up
from steepest.audit.brackets import bracketed
from steepest.audit.diagnosis import diagnose as judge
from steepest.audit.executors.contract import Executor, Task
from steepest.audit.executors.in_process import InProcess
from steepest.audit.order import Job, Order, Reopened, opened
from steepest.audit.parts import Part, require_all
from steepest.audit.places import Place
from steepest.audit.run import begin, work
from steepest.audit.store import RunFolder
from steepest.audit.tally import judged, tally
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress, Silent
from steepest.budgets.contract import Budget
from steepest.diagnose.contract import Finding, Verdict
from steepest.models.model import Model, Network


@final
@dataclass(frozen=True, slots=True)
class AuditRun:
    """A finished audit: a folder and its summary.

    Attributes:
        folder: manifest.json, results/, artifacts/; a path, or a place in an object store.
        summary: what `steepest audit --json` prints.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> run = st.audit(st.Model(net.eval()), "digits", st.Linf(0.1), preset="quick", limit=15, allow_chance=True)
    >>> run.robust_accuracy <= run.clean_accuracy
    True
    """

    folder: Place
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

    @property
    def verdict(self) -> Verdict:
        """How far the robust accuracy can be believed: `.word`, `.reasons`, `.next`."""
        return Verdict.from_record(self.summary["verdict"])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What each check said, the cheap ones first; none if the run was not diagnosed."""
        return tuple(Finding.from_record(each) for each in self.summary["findings"])

    def records(self) -> list[dict[str, Any]]:
        """Return one dict per example; the fields are described at `audit.contract.RECORD`.

        Two are added: `bracket`, "decided" where the example is broken or proven, "rounding" where a success inside
        what is proven is gone in float64, else "open"; and `ratio`, `radius` over `proven_radius`, None where there is
        none.
        """
        manifest = RunFolder(self.folder).manifest()
        return [bracketed(row) for row in RunFolder(self.folder).table(manifest["shards"]).to_pylist()]


def audit(
    model: Model | Network | str | Path,
    data: object,
    budget: Budget | Sequence[Budget],
    *,
    preset: str = "standard",
    attacks: str | None = None,
    certify: str | None = None,
    objective: ObjectiveChoice = "scaled-ce",
    target: int | None = None,
    out: str | Place | None = None,
    limit: int | None = None,
    sample: int | None = None,
    labels: Sequence[str] | None = None,
    resize: tuple[int, int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    save: bool = False,
    assure: int = 0,
    diagnose: bool = True,
    allow_chance: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    shard: str | None = None,
) -> AuditRun:
    """Measure how many examples stay right under a budget: an upper bound on robust accuracy, with its cost.

    Stages run in order of cost on the examples that no earlier stage broke; the model is asked again about every
    success. Finished shards survive any interruption: the same call with the same `out` continues.

    Args:
        model: a `Model`, a bare module that takes inputs in [0, 1], or the path of a model file for `st.load`.
        data: a path, "digits", tensors (x, y), a torch Dataset or DataLoader.
        budget: one, or several sizes of one kind; the headline is the largest.
        preset: "quick", "standard" or "thorough": the ladder of attacks with other budgets.
        attacks: catalogue calls separated by commas, instead of the preset's.
        certify: names of `steepest list certifiers`, separated by commas, instead of the preset's: of every example
            they measure the largest size that is proven, and a last search looks for the smallest that breaks.
        objective: what is ascended: a name, an object, or a function (outputs, y) → [N].
        target: attack towards this class; examples of that class are left out.
        out: the run's folder, or s3://bucket/path, gs://bucket/path; a temporary folder if left out.
        limit, sample: the first examples, or a seeded draw with each class in proportion.
        labels, resize: class names in the order of the model's outputs; (height, width) for images of many sizes.
        seed: of all random draws; records depend on nothing else that is random.
        batch_size: measured once if left out.
        shard_size: examples that are computed and saved together; 16 batches, at most 1024 examples, if left out. A
            rung of the ladder that only the closest examples enter chooses them within a shard.
        device: moves the model there first.
        save: keep every adversarial example found in artifacts/.
        assure: so many survivors, drawn at random, meet the full `autoattack` afterwards (its version "rand" where the
            model is random); the summary's "assured" then says below what robust accuracy it would not go, with 95 %
            confidence. With 60 and no success: 4.9 % of the survivors lower. A finished run can be asked for it later.
        diagnose: say afterwards how far the number can be believed, and search once more where a finding names a
            remedy; the summary's "verdict", "findings" and "mended". At most 15 % longer, or 10 s, without the
            mending. A finished run can be asked for it later.
        allow_chance: go on although the clean accuracy is what guessing gives.
        command: the text that the report gives to repeat the run.
        progress: told what happens; silent if left out.
        executor: who computes the shards: `InProcess()` (if left out), `Pool(workers=4)`, `Ray(address="auto")`, of
            `steepest.audit.executors`. Records do not depend on it.
        shard: "i/n": compute the i-th of n parts only, into this or a shared `out`; needs `batch_size`.

    Raises:
        UsageError, DataError, ModelError: what was asked, the data or the model do not fit; nothing is written.
        IncompleteError: no space is left, workers were lost, a store does not answer; what is finished is kept.
        PartFinished: with `shard`: this part is finished, and others are not there yet; see `merge`.
    """
    seen, part = progress or Silent(), _part(shard, batch_size)
    order = Order(
        model=Reopened(here=model, again=model.origin) if isinstance(model, Model) and model.origin else model,
        data=data,
        budget=budget,
        preset=preset,
        attacks=attacks,
        certify=certify,
        objective=objective,
        target=target,
        limit=limit,
        sample=sample,
        labels=labels,
        resize=resize,
        seed=seed,
        batch_size=batch_size,
        shard_size=shard_size,
        device=device,
        precision=precision,
        save=save,
        assure=assure,
        diagnose=diagnose,
        allow_chance=allow_chance,
    )
    job = opened(order)
    folder = RunFolder(out or tempfile.mkdtemp(prefix="steepest-"))
    job.subject.tell(seen)
    hands = executor or InProcess()
    job, continued = begin(folder, job, command, hands.threads(order))
    work(Task(folder=folder, order=order, job=job), hands, seen, part or Part(), continued=continued)
    return _finished(folder, job, seen, part)


def _part(shard: str | None, batch_size: int | None) -> Part | None:
    if shard is not None and batch_size is None:
        raise UsageError(f"shard={shard!r} needs batch_size=N: measured ones may differ between the parts of a run.")
    return None if shard is None else Part.parse(shard)


def _finished(folder: RunFolder, job: Job, progress: Progress, part: Part | None) -> AuditRun:
    """Do what is done when all shards are there, and open the run."""
    if part is not None:
        require_all(folder, part)
    judge(folder, job, progress)
    follow_up(folder, job, progress)
    return open_run(folder.path)


def open_run(path: str | Place) -> AuditRun:
    """Return a finished run from its folder.

    Raises:
        UsageError: the folder is not a run.
        IncompleteError: shards are missing, or the sample of survivors.
    """
    folder = RunFolder(path)
    manifest = folder.manifest()
    shards = manifest["shards"]
    found = folder.diagnosis()
    first = folder.first(shards) if found is not None and found["mended"] else None
    summary = tally(folder.table(shards), folder.ledger(shards), manifest, folder.assured())
    return AuditRun(folder.path, summary | judged(found, first))
