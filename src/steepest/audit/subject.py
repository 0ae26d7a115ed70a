"""What is audited: the model fitted to the data, in its own precision and on its device, checked on real examples."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steepest.audit.data import Source, preview
from steepest.audit.statistics import looks_like_chance
from steepest.basis.errors import DataError, ModelError, SteepestError, UsageError
from steepest.basis.fingerprints import describe
from steepest.basis.progress import Progress
from steepest.models.confirmed import Confirmed
from steepest.models.contract import Need
from steepest.models.inspection import inspected
from steepest.models.loading import fitted_to, load
from steepest.models.model import Model, Network
from steepest.models.objectives import Margin
from steepest.models.surrogate import surrogate

PREVIEW = 256
"""How many examples are looked at before a run begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and the examples it is audited on.

    Attributes:
        ids: of the chosen examples, rising.
        dtype, device: of the inputs; float64 for a network in float64, else float32.
        notes: what a reader should know before the numbers.
        adapted: what was changed to make model and data fit each other.
        first: (ids, x, y) of some examples, spread over the choice.
        correct: how many of those the model gets right.
        sloped: the model, or its surrogate where no gradient reaches the model's input.
    """

    model: Model
    sloped: Model
    source: Source
    ids: Tensor
    dtype: torch.dtype
    device: torch.device
    notes: tuple[str, ...]
    adapted: tuple[str, ...]
    first: tuple[Tensor, Tensor, Tensor]
    correct: int = 0

    def preview(self) -> str:
        """Return in one line what is audited: number and shape of examples, classes, a first look at the accuracy."""
        seen, chosen = len(self.first[0]), f"{len(self.ids)} of {len(self.source)} examples"
        return (
            f"{self.model.facts.source} on {chosen} of shape {'×'.join(map(str, self.source.shape))}, "
            f"{self.model.facts.classes} classes; {self.correct} of {seen} looked at are right "
            f"({100 * self.correct / seen:.1f} %)"
        )

    def answers(self) -> str:
        """Return in one line what was found out about the model: each fact, or that it is unknown."""
        facts = self.model.facts
        agreement = "" if facts.agreement is None else f"agrees with onnxruntime to {facts.agreement:.1g}; "
        same = {True: "the same answer twice", False: "another answer each time", None: "randomness unknown"}
        alone = {True: "independent of batchmates", False: "depends on batchmates", None: "batchmates unknown"}
        return (
            f"{agreement}{facts.outputs}; {same[facts.deterministic]}; {alone[facts.batch_independent]}; "
            f"{'training' if facts.training else 'evaluation'} mode"
        )

    def tell(self, progress: Progress) -> None:
        """Say what was found before the work begins."""
        for line in (self.preview(), self.answers(), *self.adapted, *self.notes):
            progress.say(line)

    def batch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y) of the examples `ids`, checked to lie in the box.

        Raises:
            DataError: an example leaves the box or is not finite.
        """
        x = self.source.fetch(ids)
        x = self.model.box.admit(x, f"the data (examples {int(ids[0])} to {int(ids[-1])})")
        return x.to(self.device, self.dtype), self.source.labels[ids].to(self.device)

    def usage(self) -> str:
        """Return, as one text, how the model is used: whatever changes its answers besides its weights.

        The predictions on the first examples are part of it: weights alone do not identify a function, a module
        with attributes of its own, or its mode.
        """
        with self.model.borrowed(seed=0):
            predictions = self.model.logits(self.first[1]).argmax(1)
        return json.dumps(
            {
                "box": describe(self.model.box),
                "normalisation": repr(getattr(self.model.network, "normalisation", None)),
                "training": self.model.facts.training,
                "shape": list(self.source.shape),
                "precision": str(self.dtype),
                "device": self.device.type,
                "outputs": self.model.facts.outputs,
                "asked": [repr(oracle) for oracle in self.model.oracles],
                "class_names": list(self.source.class_names or ()),
                "answers": describe(predictions),
            },
            sort_keys=True,
        )

    def device_name(self) -> str:
        """Return the name of the device for the record."""
        return "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)


def prepare(
    model: Model | Network | str | Path, source: Source, ids: Tensor, device: str | None, *, allow_chance: bool
) -> Subject:
    """Fit the model to the data, look at both, and refuse what would make every later number meaningless.

    Raises:
        DataError: shapes, box or labels do not fit; the clean accuracy is what guessing gives.
        UsageError: the device does not exist.
    """
    given = load(model) if isinstance(model, str | Path) else model
    handle = fitted_to(given if isinstance(given, Model) else Model(given), source.shape)
    dtype, place = _precision(handle.network, device)
    spread = ids[torch.linspace(0, len(ids) - 1, min(len(ids), PREVIEW)).round().long()]
    subject = Subject(
        model=handle,
        sloped=handle,
        source=source,
        ids=ids,
        dtype=dtype,
        device=place,
        notes=(),
        adapted=(*handle.facts.notes, *source.notes),
        first=(spread, spread, spread),
    )
    x, y = subject.batch(spread)
    _require_answer(handle, x[:2])
    handle = inspected(handle, x[:32])
    classes = handle.facts.classes
    assert classes is not None
    _require_labels(source.labels[ids], classes)
    found = [note for note in handle.facts.notes if note not in subject.adapted]
    notes = (*found, *_about(source, ids))
    correct = int((handle.logits(x).argmax(1) == y).sum())
    if looks_like_chance(correct, len(y), classes):
        chance = (
            f"clean accuracy is {correct} of {len(y)} examples looked at, which is what guessing among {classes} "
            "classes gives"
        )
        if not allow_chance:
            raise DataError(f"{chance}. {_CAUSES}")
        notes = (*notes, f"{chance}.")
    _require_alone(handle, x[:1])
    sloped = _sloped(handle, x[:2], y[:2])
    if sloped is not handle:
        notes = (*notes, _CUT_OFF)
    return replace(subject, model=handle, sloped=sloped, notes=notes, first=(spread, x, y), correct=correct)


def aimed(subject: Subject, target: int) -> Subject:
    """Return the subject with a note that the attacks aim at one class.

    Raises:
        UsageError: the model has no such class.
    """
    classes = subject.model.facts.classes
    if classes is not None and not 0 <= target < classes:
        raise UsageError(f"target {target} is out of range: the model has {classes} classes, 0 to {classes - 1}.")
    aim = f"the attacks aim at class {target}; examples of that class are left out"
    return replace(subject, notes=(*subject.notes, aim))


def _require_alone(model: Model, x: Tensor) -> None:
    """Ask about one example: searches go on until one is left, and a model that cannot answer then has no number."""
    if model.facts.batch_independent is not False:
        return
    try:
        model.logits(x)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"the model {model.facts.source} cannot answer one example alone ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}): batch normalisation in "
            "training mode does this. Call .eval() on it; `steepest diagnose` examines it as it is."
        ) from error


def _sloped(model: Model, x: Tensor, y: Tensor) -> Model:
    """Return what gradients are taken of: the model, or a surrogate confirmed by it where the model's are cut off."""
    if model.facts.answers != "gradient" or _has_gradient(model, x, y):
        return model
    other = surrogate(model)
    return other.asked_by(Confirmed(model)) if _has_gradient(other, x, y) else model


def _has_gradient(model: Model, x: Tensor, y: Tensor) -> bool:
    try:
        model.evaluate(x, y, Margin(), need=Need.GRADIENT)
    except ModelError:
        return False
    return True


def _require_answer(model: Model, x: Tensor) -> None:
    """Ask about two examples first: what the user's code raises there speaks of the shape, nearly always."""
    try:
        model.logits(x)
    except SteepestError:
        raise
    except Exception as error:  # the user's code may raise anything
        shape = "×".join(map(str, x.shape[1:]))
        raise ModelError(
            f"the model {model.facts.source} fails on an example of shape {shape} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}). Check that the data has "
            "the shape that the model takes (channels first; images: --resize HxW)."
        ) from error


_CUT_OFF = (
    "no gradient reaches the model's input: gradients are taken through a surrogate that passes them on, and what is "
    "found there is asked of the model"
)
_CAUSES = (
    "Likely causes: the labels are in another order than the model's outputs (give class names in the model's "
    "order: --labels); the normalisation is missing or doubled (--mean, --std); the layout or range of the images "
    "differs (channels first, RGB or BGR, [0, 1]). If the model really is that bad, add --allow-chance."
)


def _precision(network: Network, device: str | None) -> tuple[torch.dtype, torch.device]:
    """Move the network if a device is named, and return the precision of its inputs and the place of its numbers."""
    if device is not None and isinstance(network, nn.Module):
        try:
            network.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0]
            raise UsageError(f"device {device!r} cannot be used ({first}): give cpu, or leave --device out.") from None
    tensors = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if floating:
        # Points of half-precision networks live in float32; the handle casts them at the network's door.
        wide = floating[0].dtype if floating[0].dtype == torch.float64 else torch.float32
        return wide, floating[0].device
    return torch.float32, torch.device(device or "cpu")


def _require_labels(labels: Tensor, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} classes, 0 to {classes - 1}. Check that "
            "data and model belong together, and that labels start at 0."
        )


def _about(source: Source, ids: Tensor) -> list[str]:
    seen: dict[str, Any] = preview(source, ids)
    notes = []
    if seen["one_class"] and seen["n"] > 1:
        notes.append(
            f"all {seen['n']} examples have one label, {seen['classes'][0]}: accuracies speak of that class only"
        )
    return notes
