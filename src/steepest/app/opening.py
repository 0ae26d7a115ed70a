"""From settings to what the library takes: model, data, budgets, class names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steepest.app.config import Settings
from steepest.audit.data import Source, open_data, select
from steepest.audit.data.folder import ImageFiles
from steepest.audit.measure import batch_size
from steepest.audit.subject import Subject, aimed, prepare
from steepest.basis.errors import UsageError, unknown
from steepest.basis.progress import Progress
from steepest.budgets.catalogue import parse_budget
from steepest.budgets.contract import Budget
from steepest.budgets.whole import Whole
from steepest.models.contract import Objective
from steepest.models.loading import load
from steepest.models.model import Model
from steepest.models.objectives import Targeted, objective_of

DEFAULT_BUDGET = "linf:8/255"


def open_model(settings: Settings) -> Model:
    """Return the model that the settings name; raises as `st.load`."""
    if len(settings.box) != 2:
        raise UsageError(f"--box has {len(settings.box)} number(s): give the lower and the upper limit, e.g. 0,1.")
    return load(
        settings.model,
        box=(settings.box[0], settings.box[1]),
        mean=settings.mean,
        std=settings.std,
        weights=settings.weights,
        trust_code=settings.trust_code,
    )


def open_source(settings: Settings) -> Source:
    """Return the data that the settings name; raises as `open_data`."""
    return open_data(settings.data, labels=class_names(settings.labels), resize=settings.resize, label=settings.label)


def open_budgets(settings: Settings) -> list[Budget]:
    """Return the budgets in rising order of ε.

    Raises:
        UsageError: none was given, or it cannot be read.
    """
    if settings.budget is None:
        raise UsageError(
            "no --budget was given: say what may change, e.g. --budget linf:8/255 (`steepest list budgets`)."
        )
    weights, mask = _array(settings.feature_weights, "--feature-weights"), _array(settings.mask, "--mask")
    return parse_budget(settings.budget, weights=weights, mask=None if mask is None else mask != 0)


def one_budget(settings: Settings, progress: Progress, *, free: bool = False) -> Budget:
    """Return the single budget of a command that takes one; images need not name it.

    Args:
        free: none is needed, and where none was given only the box limits.

    Raises:
        UsageError: several sizes were given, or a mask or weights of no budget.
    """
    if settings.budget is None and free:
        if settings.mask is not None or settings.feature_weights is not None:
            raise UsageError("--mask and --feature-weights shape a budget, and none was given: add --budget.")
        return Whole()
    if settings.budget is None:
        progress.say(f"no --budget was given: {DEFAULT_BUDGET} is used")
        settings = settings.model_copy(update={"budget": DEFAULT_BUDGET})
    found = open_budgets(settings)
    if len(found) > 1:
        raise UsageError(f"--budget {settings.budget!r} has {len(found)} sizes: give one here; `audit` takes several.")
    return found[0]


def class_names(text: str | None) -> list[str] | None:
    """Return the class names in "a,b,c", or in a file with one on each line.

    Raises:
        UsageError: the file is missing or cannot be read.
    """
    if text is None:
        return None
    if Path(text).is_file():
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--labels {text!r} cannot be read ({error}): give a text file, one name a line."
            ) from None
        return [line.strip() for line in lines if line.strip()]
    if "," not in text:
        raise UsageError(
            f"--labels {text!r} is neither a file nor a list: give a,b,c or an existing file with one name a line."
        )
    return [name.strip() for name in text.split(",")]


def target_index(target: str | None, names: tuple[str, ...] | None) -> int | None:
    """Return the class that an index or a name means.

    Raises:
        UsageError: an unknown name, or a name although no class names are known.
    """
    if target is None:
        return None
    if names is not None and target in names:
        return names.index(target)
    if target.isdecimal():
        return int(target)
    if names is None:
        raise UsageError(f"--target {target!r} is a name, but the classes have none: give its index, or --labels.")
    raise unknown("target", target, names)


def open_subject(settings: Settings, progress: Progress) -> tuple[Subject, int | None]:
    """Return model and data, fitted and checked as for an audit, and the target; tell what was found.

    A single image without a label is taken to be what the model says it is.
    """
    source = open_source(settings)
    target = target_index(settings.target, source.class_names)
    ids = select(source, limit=settings.limit, sample=settings.sample, seed=settings.seed)
    image = source if isinstance(source, ImageFiles) and int(source.labels.min()) < 0 else None
    if image is not None:
        source = replace(image, labels=torch.zeros_like(image.labels))
    if target is not None and image is None:
        ids = ids[source.labels[ids] != target]
    if not ids.numel():
        raise UsageError(f"no example is left to attack: all have the target's label {target}. Give another --target.")
    subject = prepare(open_model(settings), source, ids, settings.device, allow_chance=settings.allow_chance)
    if image is not None:
        ids, x, _ = subject.first
        said = subject.model.logits(x).argmax(1)
        progress.say(f"no --label was given: the model's own answer, {int(said)}, is taken as the label")
        source = replace(image, labels=said.cpu())
        subject = replace(subject, source=source, first=(ids, x, said), correct=len(said))
    subject = subject if target is None else aimed(subject, target)
    subject.tell(progress)
    return subject, target


def goal_of(settings: Settings, target: int | None) -> Objective:
    """Return the objective that the settings name, towards the target if there is one."""
    return objective_of(settings.objective) if target is None else Targeted(settings.objective, target)


def batches(subject: Subject, settings: Settings, objective: Objective) -> list[Tensor]:
    """Return the ids in batches, of the size asked for or measured."""
    first, x, y = subject.first
    size = settings.batch() or batch_size(subject.model, x, y, objective.rows(first))
    return list(torch.split(subject.ids, size))


def _array(path: str | None, option: str) -> Tensor | None:
    if path is None:
        return None
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"{option} {path!r} does not exist: check the path.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{option} {path!r} is not a whole .npy file ({error}): write it with numpy.save.") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise UsageError(f"{option} {path!r} does not hold one array of numbers: write it with numpy.save.")
    return torch.from_numpy(np.ascontiguousarray(found))
