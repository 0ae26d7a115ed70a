"""`steepest harden`: train on worst-case points, then audit what came of it beside what it began with."""

from __future__ import annotations

import copy
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
import typer
from torch import Tensor, nn

from steepest.app import console
from steepest.app.audit import show_verdict
from steepest.app.config import Settings, command_line, default_folder, resolve
from steepest.app.exits import INCOMPLETE
from steepest.app.opening import one_budget, open_model, open_source
from steepest.audit.api import AuditRun, audit
from steepest.audit.data import Source, open_data, select
from steepest.audit.statistics import looks_like_chance
from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.basis.version import VERSION
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.harden.api import REMEDIES, fitting, harden
from steepest.harden.bias import training_bias
from steepest.harden.contract import Classroom
from steepest.harden.examples import MOST_HELD, split
from steepest.harden.folder import Folder, on_disk
from steepest.harden.moment import put
from steepest.harden.records import broke_off
from steepest.harden.trackers import trackers_of
from steepest.harden.training import Hardened
from steepest.models.inspection import fingerprint
from steepest.models.loading import fitted_to
from steepest.models.loading.adapt import Normalised, Reshaped
from steepest.models.loading.factory import names_factory
from steepest.models.model import Model
from steepest.report import hardening
from steepest.report.page import put as place_page
from steepest.report.run import report

REMEDY = "write `steepest harden net.py:make DATA --method n-fgsm --budget linf:8/255`"
WEIGHTS, HISTORY = "hardened.safetensors", "history.json"
AFTER, BEFORE = "audit", "start"
"""The runs in the folder of a training: of the hardened weights, and of those that it began with."""
BATCH, STOP = 128, "stop"
AUDITED = 0.2
"""Share of each class, at most 1000 examples, that is set aside for the audit where no --test is given."""

_BATCHES, _LEAST = 10, 8
"""Minibatches that the bias is measured on, of at least so many examples."""

_APART = 1 << 32
"""Added to the seed, so that the examples of the audit are drawn apart from those that choose the weights."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `steepest harden` is told besides what every command is; names are those of the options."""

    method: str = "n-fgsm"
    epochs: int = 30
    lr: float = 0.2
    schedule: str = "cyclic"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    held_out: float = 0.1
    patience: int | None = None
    augment: str = "none"
    precision: str = "float32"
    channels_last: bool = False
    ema: float | None = None
    swa: float | None = None
    sentinel: bool = True
    remedy: tuple[str, ...] = REMEDIES
    bias_every: int = 0
    devices: int = 1
    track: str = ""
    test: str | None = None

    def words(self) -> list[str]:
        """Return the options that ask for this again."""
        found: list[str] = []
        for field in fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value == field.default:
                continue
            if isinstance(value, bool):
                found.append(option if value else f"--no-{field.name}")
            else:
                found += [
                    word for each in (value if isinstance(value, tuple) else (value,)) for word in (option, str(each))
                ]
        return found


def asked_of(given: Mapping[str, Any]) -> tuple[dict[str, Any], Asked]:
    """Return the options that every command shares, and those of this one."""
    named = {"in_precision": "precision"}
    words = {named.get(name, name): value for name, value in given.items()}
    own = {field.name for field in fields(Asked)}
    mine: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in words.items() if name in own
    }
    return {name: value for name, value in words.items() if name not in own}, Asked(**mine)


def run(given: Mapping[str, Any], asked: Asked, *, as_json: bool) -> None:
    """Train, audit before and after, write weights, history and page, print the result; raises as `st.harden`."""
    with console.Terminal() as terminal:
        settings, notes = resolve(given, remedy=REMEDY)
        for note in notes:
            terminal.say(note)
        record, stopped = _hardened(settings, asked, terminal)
    folder = Path(record["folder"])
    place_page(folder / hardening.PAGE, hardening.render(record))
    if as_json:
        console.show_json(record)
    else:
        show(record)
    if stopped:
        raise typer.Exit(INCOMPLETE)


def show(record: Mapping[str, Any]) -> None:
    """Print what was trained, what was seen, the audit and where everything is."""
    for sentence in hardening.sentences(record):
        console.say(sentence)
    show_verdict(record["audit"]["verdict"])
    for path in record["files"].values():
        console.say(path)


def _hardened(settings: Settings, asked: Asked, terminal: console.Terminal) -> tuple[dict[str, Any], bool]:
    """Look at what is cheap to refuse before anything large is opened; return the record, and whether it broke off."""
    _require_trainable(settings.model)
    out = on_disk(settings.out) if settings.out else None
    budget = one_budget(settings, terminal)
    fitting(asked.method, budget)
    settings.batch()
    source = open_source(settings)
    examples = _Examples.of(settings, asked, source)
    model = _opened(settings, source, terminal)
    out = out or default_folder(settings, " ".join(["harden", *asked.words()]))
    command = shlex.join([*shlex.split(command_line(["harden"], settings)), *asked.words()])
    order = _Order(settings=settings, asked=asked, budget=budget, out=out, command=command, terminal=terminal)
    found = _trained(model, examples.learnt, order)
    folder, network = Folder(out), model.network
    assert isinstance(network, nn.Module)
    files = {
        "weights": folder.write_weights(WEIGHTS, core_of(network).state_dict()),
        "history": folder.write(HISTORY, (json.dumps(found.to_record(), indent=1) + "\n").encode()),
    }
    ask = partial(_audited, order, examples.audited())
    after = ask(model, AFTER, f"{settings.model} hardened")
    begun = copy.deepcopy(network)
    put(begun, folder.start() or {})
    before = ask(Model(begun, model.box, facts=model.facts), BEFORE, f"{settings.model} at the start")
    files |= {"page": out / hardening.PAGE, "audit": out / AFTER, "start": out / BEFORE}
    record = {
        "model": settings.model,
        "command": command,
        "version": VERSION,
        "folder": str(out),
        "audited": examples.says,
        "notes": list(examples.notes),
        "watched": folder.asked()["watch"] != "none",
        "asked": folder.asked(),
        "training": found.to_record(),
        "audit": after.summary,
        "start": before.summary,
        "start_trained": _trained_before(before),
        "files": {name: str(path) for name, path in files.items()},
    }
    return record, broke_off(found.stopped)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What the whole command was asked."""

    settings: Settings
    asked: Asked
    budget: Budget
    out: Path
    command: str
    terminal: console.Terminal


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some examples of a source, as a training takes them."""

    source: Source
    ids: Tensor

    @property
    def labels(self) -> Tensor:
        """See `Examples.labels`."""
        return self.source.labels[self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def fetch(self, ids: Tensor) -> Tensor:
        """See `Examples.fetch`."""
        return self.source.fetch(self.ids[ids])

    def sha256(self) -> str:
        """See `Examples.sha256`."""
        return hashlib.sha256(self.source.sha256().encode() + self.ids.numpy().tobytes()).hexdigest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    """Which examples are learnt from, and on which the audit is."""

    learnt: Part
    apart: Part
    says: str
    notes: tuple[str, ...]

    @staticmethod
    def of(settings: Settings, asked: Asked, source: Source) -> _Examples:
        ids = select(source, limit=settings.limit, sample=settings.sample, seed=settings.seed)
        if asked.test is not None:
            other = open_data(asked.test, labels=source.class_names, resize=settings.resize)
            if tuple(other.shape) != tuple(source.shape):
                raise DataError(
                    f"--test {asked.test!r} has examples of shape {other.shape}, DATA of {source.shape}: both must be "
                    "of one kind."
                )
            apart = Part(source=other, ids=torch.arange(min(len(other), MOST_HELD)))
            says = f"of {asked.test}, which took no part in training"
            return _Examples(learnt=Part(source=source, ids=ids), apart=apart, says=says, notes=source.notes)
        learnt, kept = split(source.labels[ids], AUDITED, settings.seed + _APART)
        if not len(kept):
            raise DataError(
                f"of {len(ids)} examples none can be set aside for the audit (a fifth of each class): give more, or "
                "others with --test."
            )
        return _Examples(
            learnt=Part(source=source, ids=ids[learnt]),
            apart=Part(source=source, ids=ids[kept]),
            says="set aside before training",
            notes=source.notes,
        )

    def audited(self) -> tuple[Tensor, Tensor]:
        return self.apart.fetch(torch.arange(len(self.apart))), self.apart.labels


def core_of(network: nn.Module) -> nn.Module:
    """Return the user's own module inside what fits it to data: its weights have the names of the user's code."""
    while isinstance(network, Normalised | Reshaped) and isinstance(network.network, nn.Module):
        network = network.network
    return network


def _require_trainable(source: str) -> None:
    if names_factory(source) and not Path(source).exists():
        return
    ending = Path(source).suffix.lower()
    if ending == ".py":
        raise UsageError(f"{source!r} is code: say which function of it builds the network, as in {source}:make.")
    why = (
        "such a file holds weights, not the code that uses them"
        if ending in (".pt", ".pth", ".ckpt", ".safetensors")
        else "an exported file holds a fixed graph, its batch norms folded and its dropout gone"
    )
    raise UsageError(
        f"{source!r} cannot be trained: {why}. Give the network's own code, net.py:factory, and its weights with "
        "--weights; export what comes out."
    )


def _opened(settings: Settings, source: Source, terminal: console.Terminal) -> Model:
    """Return the user's network, every floating-point parameter of it trainable, on its device."""
    # A factory draws its first weights from the global generator.
    torch.manual_seed(settings.seed)
    model = fitted_to(open_model(settings), source.shape)
    network = model.network
    if not isinstance(network, nn.Module):
        raise ModelError(f"{settings.model!r} builds a plain function: let the factory return the torch.nn.Module.")
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    if settings.device is not None:
        try:
            network.to(settings.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"--device {settings.device!r} cannot be used ({error}): give cpu or cuda.") from None
    for note in (*model.facts.notes, *source.notes):
        terminal.say(note)
    return model


def _trained(model: Model, data: Part, order: _Order) -> Hardened:
    settings, asked = order.settings, order.asked
    weights = "" if settings.weights is None else f" with {model.facts.sha256[:16]}"
    remedies = [each for each in asked.remedy if each != STOP]
    return harden(
        model,
        data,
        order.budget,
        method=asked.method,
        epochs=asked.epochs,
        batch_size=settings.batch() or BATCH,
        lr=asked.lr,
        schedule=asked.schedule,
        momentum=asked.momentum,
        weight_decay=asked.weight_decay,
        seed=settings.seed,
        held_out=asked.held_out,
        patience=asked.patience,
        augment=asked.augment,
        precision=asked.precision,
        channels_last=asked.channels_last,
        ema=asked.ema,
        swa=asked.swa,
        watch="sentinel" if asked.sentinel else None,
        measure=partial(_bias, asked.method, settings.seed) if asked.bias_every else None,
        every=asked.bias_every,
        remedies=remedies,
        devices=asked.devices,
        out=order.out,
        name=f"{settings.model}{weights}",
        progress=order.terminal,
        trackers=trackers_of(asked.track, order.out),
    )


def _audited(order: _Order, data: tuple[Tensor, Tensor], model: Model, folder: str, name: str) -> AuditRun:
    settings = order.settings
    network = model.network.eval() if isinstance(model.network, nn.Module) else model.network
    facts = replace(model.facts, source=name, sha256=fingerprint(network))
    order.terminal.say(f"auditing {name}")
    found = audit(
        Model(network, model.box, facts=facts),
        data,
        order.budget,
        preset=settings.preset,
        attacks=settings.attacks,
        objective=settings.objective,
        out=order.out / folder,
        seed=settings.seed,
        assure=settings.assure,
        diagnose=settings.diagnose,
        allow_chance=True,
        command=order.command,
        progress=order.terminal,
    )
    report(found)
    return found


def _trained_before(start: AuditRun) -> bool:
    summary = start.summary
    return not looks_like_chance(round(summary["clean_accuracy"] * summary["n"]), summary["n"], summary["classes"])


def _bias(method: str, seed: int, room: Classroom, region: Region, y: Tensor) -> dict[str, float]:
    """How far the method's gradient is from that of the worst case, in four numbers."""
    batches = max(3, min(_BATCHES, len(y) // _LEAST))
    found = training_bias(room.model, region.x, y, region.budget, method=method, batches=batches, seed=seed)
    return {
        "cosine of both gradients": found.cosine,
        "bias, share of the gradient": found.relative,
        "loss that was missed": found.gap,
        "coordinates on the other side": float(found.disagreement.mean()),
    }
