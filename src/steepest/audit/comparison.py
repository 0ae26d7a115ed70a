"""Models side by side: one audit each on the same examples, paired differences, and what each is like inside."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from steepest.attacks.api import ObjectiveChoice
from steepest.audit.anatomy import Anatomy, anatomy
from steepest.audit.api import AuditRun, audit
from steepest.audit.data import Source, open_data, select
from steepest.audit.pairs import Pair, held, pairs
from steepest.audit.places import Place, place_of
from steepest.audit.store import RunFolder
from steepest.audit.subject import Subject, prepare
from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.basis.progress import Progress, Silent
from steepest.basis.version import VERSION
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.models.loading import load
from steepest.models.model import Model, Network

LOOKED = 64
"""Examples around which gradients and layers are looked at, the same for every model."""

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One model of a comparison: its audit, and what it is like inside.

    Attributes:
        median: of the smallest radius found, over all examples: 0 where the model is wrong at x; None where more than
            half are unbroken at every ε tried.
    """

    name: str
    run: AuditRun
    anatomy: Anatomy
    median: float | None

    def to_record(self) -> dict[str, Any]:
        """Return the model's part as plain JSON values."""
        summary = self.run.summary
        taken = ("clean_accuracy", "clean_interval", "robust_accuracy", "robust_interval", "sizes", "curve", "mended")
        amplifier = self.anatomy.amplifier
        return {
            "name": self.name,
            "source": RunFolder(self.run.folder).manifest()["model"]["source"],
            "folder": str(self.run.folder),
            **{key: summary[key] for key in taken},
            "blind": summary["blind"],
            "verdict": summary["verdict"],
            "median_radius": self.median,
            "anatomy": {**asdict(self.anatomy), "amplifier": None if amplifier is None else amplifier.name},
        }


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models side by side on the same examples.

    Attributes:
        folder: holds one run a model.
        models: those that could be measured, in the order given.
        pairs: every two of them.
        failed: name and reason of each that could not.

    >>> import steepest as st
    >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval() for name in "ab"}
    >>> found = st.compare(nets, "digits", st.Linf(0.1), preset="quick", limit=30, allow_chance=True)
    >>> [pair.clean.p <= 1 for pair in found.pairs], [row["name"] for row in found.to_record()["models"]]
    ([True], ['a', 'b'])
    """

    folder: Place
    models: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    failed: tuple[tuple[str, str], ...]

    @property
    def layers(self) -> dict[str, tuple[Any, ...]]:
        """The layers of each model, in the order of calls."""
        return {each.name: each.anatomy.layers for each in self.models}

    def to_record(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values: what `steepest compare --json` prints."""
        first = self.models[0].run.summary
        asked = ("n", "budget", "budget_unit", "epsilon", "preset", "objective", "seed")
        return {
            **{key: first[key] for key in asked},
            "folder": str(self.folder),
            "version": VERSION,
            "models": [each.to_record() for each in self.models],
            "pairs": [each.to_record() for each in self.pairs],
            "failed": [{"name": name, "error": error} for name, error in self.failed],
        }


def compare(
    models: Mapping[str, Model | Network | str | Path],
    data: object,
    budget: Budget | Sequence[Budget],
    *,
    preset: str = "standard",
    attacks: str | None = None,
    objective: ObjectiveChoice = "scaled-ce",
    out: str | Place | None = None,
    limit: int | None = None,
    sample: int | None = None,
    labels: Sequence[str] | None = None,
    resize: tuple[int, int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    diagnose: bool = True,
    allow_chance: bool = False,
    commands: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Audit models on the same examples and hold them against each other, in pairs.

    Each pair is compared example by example: McNemar's exact test and a paired bootstrap interval for clean and
    robust accuracy at every ε, and for the median of the smallest radius found. Each model is also looked at from
    inside, on up to 64 of the examples: gradients, linearity, flat units, how its layers stretch a perturbation. A
    model that fails on the data is listed as failed, and the others go on. An audit that was finished before is read
    from `out`.

    Args:
        models: what `st.audit` takes, each under a name of letters, digits, ".", "_" and "-".
        out: a folder for one run a model, OUT/NAME; a temporary one if left out.
        commands: by name, the text that a run's page gives to repeat it.
        Others: as `st.audit`.

    Raises:
        UsageError: fewer than two models, a name that no folder can have, models that take other numbers of values
            or answer other numbers of classes; else as `st.audit`.
        DataError, ModelError: as `st.audit`, where no model is left.

    Source: of the test McNemar 1947, of the adjustment for several pairs Holm 1979.

    >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval() for name in "ab"}
    >>> from steepest.budgets.linf import Linf
    >>> found = compare(nets, "digits", Linf(0.1), preset="quick", limit=30, allow_chance=True)
    >>> [each.name for each in found.models], len(found.pairs), found.failed
    (['a', 'b'], 1, ())
    """
    told = progress or Silent()
    _require_names(models)
    source = open_data(data, labels=labels, resize=resize)
    ids = select(source, limit=limit, sample=sample, seed=seed)
    handles = {name: _handle(model) for name, model in models.items()}
    subjects, failures = _subjects(handles, source, ids, device, allow_chance)
    folder = place_of(out or tempfile.mkdtemp(prefix="steepest-"))
    found = []
    for name, subject in subjects.items():
        told.say(f"{name}:")
        try:
            run = audit(
                handles[name],
                source,
                budget,
                preset=preset,
                attacks=attacks,
                objective=objective,
                out=folder / name,
                limit=limit,
                sample=sample,
                seed=seed,
                batch_size=batch_size,
                device=device,
                precision=precision,
                diagnose=diagnose,
                allow_chance=allow_chance,
                command=(commands or {}).get(name),
                progress=progress,
            )
            found.append(_compared(name, run, subject, budget, seed))
        except (DataError, ModelError) as error:
            failures[name] = error
    for name, failure in failures.items():
        told.say(f"{name} could not be measured: {failure}")
    return _comparison(folder, found, failures, seed)


def _comparison(
    folder: Place, found: list[Compared], failures: Mapping[str, DataError | ModelError], seed: int
) -> Comparison:
    if not found:
        raise next(iter(failures.values()))
    return Comparison(
        folder=folder,
        models=tuple(found),
        pairs=pairs({each.name: held(each.run) for each in found}, seed=seed),
        failed=tuple((name, str(error)) for name, error in failures.items()),
    )


def _require_names(models: Mapping[str, Any]) -> None:
    if len(models) < 2:
        raise UsageError(
            f"{len(models)} model{'' if len(models) == 1 else 's'} to compare: give at least two; one alone is audited."
        )
    for name in models:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"a model is named {name!r}; a name is a folder's too: use letters, digits, '.', '_', '-' only."
            )


def _handle(model: Model | Network | str | Path) -> Model:
    if isinstance(model, str | Path):
        return load(model)
    return model if isinstance(model, Model) else Model(model)


def _require_same_inputs(models: Mapping[str, Model]) -> None:
    """Models may read the same values in other shapes, but not another number of them."""
    known = {name: model.facts.input_shape for name, model in models.items() if model.facts.input_shape is not None}
    if len({int(np.prod(shape)) for shape in known.values()}) > 1:
        said = ", ".join(f"{name} takes {'×'.join(map(str, shape))}" for name, shape in known.items())
        raise UsageError(
            f"the models take examples of different size: {said}. Side by side they must answer the same examples: "
            "put the resizing into the model, or audit them one by one."
        )


def _subjects(
    models: Mapping[str, Model], source: Source, ids: torch.Tensor, device: str | None, allow_chance: bool
) -> tuple[dict[str, Subject], dict[str, DataError | ModelError]]:
    """Look at every model before the first is audited: who fails, and whether the others answer alike."""
    _require_same_inputs(models)
    found: dict[str, Subject] = {}
    failures: dict[str, DataError | ModelError] = {}
    for name, model in models.items():
        try:
            found[name] = prepare(model, source, ids, device, allow_chance=allow_chance)
        except (DataError, ModelError) as error:
            failures[name] = error
    classes = {name: subject.model.facts.classes for name, subject in found.items()}
    if len(set(classes.values())) > 1:
        said = ", ".join(f"{name} has {number}" for name, number in classes.items())
        raise UsageError(
            f"the models have different numbers of classes: {said}. Robustness among few classes is easier: give "
            "models of the same classes, or audit them one by one."
        )
    return found, failures


def _compared(name: str, run: AuditRun, subject: Subject, budget: Budget | Sequence[Budget], seed: int) -> Compared:
    spread = torch.linspace(0, len(subject.ids) - 1, min(len(subject.ids), LOOKED)).round().long()
    ids = subject.ids[spread]
    x, y = subject.batch(ids)
    shape = (len(subject.source), *subject.source.shape)
    fitted = [one.fitted(shape) for one in (budget if isinstance(budget, Sequence) else [budget])]
    widest = max(fitted, key=lambda one: largest(one.epsilon)).rows(ids)
    return Compared(
        name=name,
        run=run,
        anatomy=anatomy(subject.model, x, y, widest, ids=ids, seed=seed),
        median=held(run).median,
    )
