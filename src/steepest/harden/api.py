"""Training on worst-case points: step by step in a loop of one's own, or in one call that is kept and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from steepest.attacks.fitting import admits
from steepest.basis.errors import ModelError, UsageError, unknown
from steepest.basis.progress import Progress, Silent, Tracker
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget
from steepest.harden.course import Course
from steepest.harden.examples import opened
from steepest.harden.folder import on_disk
from steepest.harden.library import METHODS
from steepest.harden.loop import Hardening, Measure
from steepest.harden.sentinel import Sentinel
from steepest.harden.team import Team
from steepest.harden.training import Hardened, Training, trained
from steepest.harden.watch import Watch
from steepest.models.model import Model

REMEDIES = ("n-fgsm", "pgd(steps=2)", "pgd")
"""What takes over when a watch asks for a return, in this order, as far as it was not at work."""


UNWATCHED = ("plain", "noise", "ibp", "crown-ibp")
"""Methods without a search that training could overfit to."""


def hardening(
    module: nn.Module | Model,
    data: object,
    budget: Budget,
    *,
    method: str = "n-fgsm",
    epochs: int = 30,
    batch_size: int = 128,
    lr: float = 0.2,
    schedule: str = "cyclic",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    seed: int = 0,
    held_out: float = 0.1,
    patience: int | None = None,
    augment: str = "none",
    precision: str = "float32",
    channels_last: bool = False,
    ema: float | None = None,
    swa: float | None = None,
    watch: Watch | str | None = "sentinel",
    remedies: Sequence[str] = REMEDIES,
    measure: Measure | None = None,
    every: int = 0,
    team: Team | None = None,
) -> Hardening:
    """Return a training as an iterator over its steps: `for step in st.hardening(...)`.

    Between two steps the network may be looked at; `state()` and `restore()` of the iterator keep a training and go
    on with it. The order of examples, noise and what the network draws depend on (seed, epoch, step) alone.

    Args:
        module: a network in PyTorch, trained in place; a `Model` of one brings box and normalisation.
        data: tensors (x, y), a torch Dataset or DataLoader (of which the data set alone is used), a source.
        budget: what the training points may differ by.
        method: a call of `steepest list methods`.
        epochs, batch_size, lr, schedule, momentum, weight_decay, seed, held_out, patience, augment, precision, ema,
            swa: see `steepest.harden.course.Course`.
        channels_last: keep images with their channels last in memory, which is faster on GPUs.
        watch: looks at every step; may ask for a return or an end. "sentinel": `steepest.harden.sentinel.Sentinel()`,
            for methods that train on points which a search found.
        remedies: methods that take over after a return.
        measure, every: called after every `every`-th epoch for numbers of one's own, kept with the epoch.
        team: several processes, see `steepest.harden.several`.

    Raises:
        UsageError: a name or number is not allowed, the method does not serve the budget, the budget exceeds the box.
        DataError: examples leave the box, labels do not fit, there is one class only.
        ModelError: there is nothing to train.

    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> x, y = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
    >>> from steepest.budgets.linf import Linf
    >>> [step.number for step in hardening(net, (x, y), Linf(0.05), method="fgsm", epochs=2, batch_size=32)]
    [0, 1, 2, 3]
    """
    course = Course(
        budget=budget,
        method=fitting(method, budget),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        held_out=held_out,
        patience=patience,
        augment=augment,
        precision=precision,
        channels_last=channels_last,
        ema=ema,
        swa=swa,
        remedies=tuple(each for each in remedies if _serves(each, budget)),
    )
    model = _trainable(module)
    return Hardening(
        model, opened(data), course, watch=_watching(watch, method), measure=measure, every=every, team=team
    )


def harden(
    module: nn.Module | Model,
    data: object,
    budget: Budget,
    *,
    method: str = "n-fgsm",
    epochs: int = 30,
    batch_size: int = 128,
    lr: float = 0.2,
    schedule: str = "cyclic",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    seed: int = 0,
    held_out: float = 0.1,
    patience: int | None = None,
    augment: str = "none",
    precision: str = "float32",
    channels_last: bool = False,
    ema: float | None = None,
    swa: float | None = None,
    watch: Watch | str | None = "sentinel",
    remedies: Sequence[str] = REMEDIES,
    measure: Measure | None = None,
    every: int = 0,
    devices: int = 1,
    out: str | Path | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    trackers: Sequence[Tracker] = (),
) -> Hardened:
    """Train a network on worst-case points, and keep the weights that are most robust on held-out examples.

    With `out`, a checkpoint is written every few minutes and after every epoch; the same call again goes on from the
    last one and, on a processor, ends in the same weights bit for bit. A loss that is not finite is answered once, by
    going back and a tenth of the learning rate; the second time training ends with what is known.

    Args:
        devices: so many processes or GPUs train together, by Lightning Fabric (an extra); `out` is then needed.
        out: the training's folder; nothing is written if left out.
        name: of the network, for records and for telling trainings apart; its class if left out.
        progress, trackers: told what happens.
        Others: as `hardening`.

    Raises:
        UsageError, DataError, ModelError: as `hardening`; or `out` holds another training, whose differences are named.
        IncompleteError: the disk is full; the last checkpoint is kept.

    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> x, y = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
    >>> from steepest.budgets.linf import Linf
    >>> harden(net, (x, y), Linf(0.05), method="fgsm", epochs=2, batch_size=32).stopped
    ''
    """
    course = Course(
        budget=budget,
        method=fitting(method, budget),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        momentum=momentum,
        weight_decay=weight_decay,
        seed=seed,
        held_out=held_out,
        patience=patience,
        augment=augment,
        precision=precision,
        channels_last=channels_last,
        ema=ema,
        swa=swa,
        remedies=tuple(each for each in remedies if _serves(each, budget)),
    )
    training = Training(
        model=_trainable(module),
        data=opened(data),
        course=course,
        watch=_watching(watch, method),
        measured=(measure, every),
        devices=devices,
        folder=None if out is None else on_disk(out),
        name=name,
    )
    return trained(training, progress or Silent(), trackers)


def _watching(watch: Watch | str | None, method: str) -> Watch | None:
    """Return the watch that was asked for.

    Raises:
        UsageError: a name that is not "sentinel".
    """
    if watch is None or not isinstance(watch, str):
        return watch
    if watch != "sentinel":
        raise unknown("watch", watch, ["sentinel"], "Or give an object with `look`, or None.")
    return None if method.partition("(")[0].strip() in UNWATCHED else Sentinel()


def fitting(method: str, budget: Budget) -> str:
    """Return the whole call of a method that serves the budget.

    Raises:
        UsageError: an unknown method, or a budget of another kind; names the methods that serve it.
    """
    made, kind = METHODS.build(method), kind_of(budget)
    if not _serves(method, budget):
        others = [entry.name for entry in METHODS if admits(entry.facts.get("budgets", "any"), kind)]
        raise UsageError(
            f"{method} serves the budgets {', '.join(made.budgets)}, not {kind}; for {kind} there are "
            f"{', '.join(others)} (`steepest list methods`)."
        )
    return made.call


def _serves(method: str, budget: Budget) -> bool:
    return admits(", ".join(METHODS.build(method).budgets) or "any", kind_of(budget))


def _trainable(module: nn.Module | Model) -> Model:
    """Return a handle of a network that gradients reach.

    Raises:
        ModelError: it is a plain function, or wrapped for attacks.
    """
    model = module if isinstance(module, Model) else Model(module)
    if not isinstance(model.network, nn.Module) or model.oracles:
        raise ModelError(
            f"{model.facts.source} cannot be trained: it is a plain function, or answers through a wrapper (expected, "
            "estimated, surrogate). Give the torch.nn.Module itself."
        )
    return model
