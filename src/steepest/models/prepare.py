"""A faster twin of a network, to search in; what it finds is asked of the original before it counts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from steepest.basis.errors import ModelError
from steepest.basis.tensors import flat
from steepest.models.captured import Captured
from steepest.models.confirmed import Confirmed
from steepest.models.contract import Evaluation, Need, Objective
from steepest.models.folding import folded
from steepest.models.halving import Halved, halved
from steepest.models.inspection import difference, size_of
from steepest.models.model import Model, half_precision

GAIN = 1.05
"""A change is kept if it makes questions at least so many times faster: less is noise."""

GAIN_OF_A_GRAPH = 1 / GAIN
"""A recording is kept unless it is slower than noise explains: it spares the host's work, which shows between
questions and in the smaller batches of a search, and hides behind the GPU's in one question of a full batch."""

WORTH = 0.005
"""A batch whose gradient takes less than so many seconds is not worth a twin: its cost is not the network's."""

WORTH_ON_A_GPU = 0.001
"""The same on a GPU, where a small network waits for its kernels to be launched, which a recording spares it."""

_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How far two networks agree on some inputs.

    Attributes:
        outputs: the largest difference, over the largest output.
        changed: share of examples whose predicted class differs.
        slopes: mean cosine between the gradients.
    """

    outputs: float
    changed: float
    slopes: float

    def within(self, bounds: Likeness) -> bool:
        """Return whether this is at least as close as `bounds`."""
        return self.outputs <= bounds.outputs and self.changed <= bounds.changed and self.slopes >= bounds.slopes


SAME = Likeness(outputs=1e-4, changed=0.0, slopes=0.999)
"""Exact but for rounding."""

ALIKE = Likeness(outputs=0.05, changed=0.05, slopes=0.9)
"""A good guide, whose successes need confirmation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one change on top of those kept before it.

    Attributes:
        change: a name of `CHANGES`.
        kept: whether it is part of the twin.
        likeness: to the original; None if it could not be asked.
        gain: how many times faster; None if it was not timed, being unlike.
        failure: what was raised, making or asking it; empty if nothing was.

    >>> str(Trial(change="channels-last", kept=False, likeness=SAME, gain=0.8))
    'channels-last left out (0.80 times as fast, outputs within 0.0001, 0 % of predictions changed, cosine 0.9990)'
    """

    change: str
    kept: bool = False
    likeness: Likeness | None = None
    gain: float | None = None
    failure: str = ""

    def __str__(self) -> str:
        if self.likeness is None:
            return f"{self.change} failed ({self.failure})"
        speed = "not timed" if self.gain is None else f"{self.gain:.2f} times as fast"
        return (
            f"{self.change} {'kept' if self.kept else 'left out'} ({speed}, outputs within "
            f"{self.likeness.outputs:.2g}, {100 * self.likeness.changed:.2g} % of predictions changed, cosine "
            f"{self.likeness.slopes:.4f})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is searched in, and how it was chosen.

    Attributes:
        model: the twin, whose successes are confirmed by the original; the original itself if nothing was faster.
        changes: what makes the twin, in order, names of `CHANGES`; none if the original is searched in.
        speedup: gradients a second, twin over original, without confirmation.
        difference: the largest between their outputs on the inputs tried, over the largest output.
        seconds: that choosing took.
        trials: of every change that applies, in order.
    """

    model: Model
    changes: tuple[str, ...] = ()
    speedup: float = 1.0
    difference: float = 0.0
    seconds: float = 0.0
    trials: tuple[Trial, ...] = ()


def prepare(model: Model, x: Tensor, y: Tensor, objective: Objective, *, exact: bool = False) -> Preparation:
    """Return the fastest twin of `model` that answers like it on the real inputs `x`, a batch as it will be asked.

    Each of `CHANGES` is tried in turn on top of those kept, and kept if outputs, predictions and gradients agree and
    gradients come at least 1.05 times faster, both networks timed in turn; a CUDA graph unless it is slower. The
    original is never touched.

    Left alone, with no change: functions that are no modules; parts in training mode; models that are asked by an
    oracle or answer no gradient; models that draw random numbers, keep a state or mix a batch (those must have been
    `inspected`); batches that take less than 5 ms, on a GPU 1 ms.

    Args:
        exact: leave every model alone.

    >>> from steepest.models.objectives import Margin
    >>> prepare(Model(nn.Linear(2, 2)), torch.zeros(1, 2), torch.zeros(1).long(), Margin()).changes
    ()
    """
    begin = time.perf_counter()
    if exact or not len(x) or not _steady(model):
        return Preparation(model=model)
    try:
        reference, first = _asked(model, x, y, objective)
    except ModelError:  # it has no gradient; a search that needs one says so
        return Preparation(model=model)
    least = WORTH_ON_A_GPU if x.is_cuda else WORTH
    if first < least or _asked(model, x, y, objective)[1] < least:  # the first question warms up
        return Preparation(model=model)
    twin, kept, speedup, off, trials = model, list[str](), 1.0, 0.0, list[Trial]()
    for name in CHANGES:
        try:
            tried = _changed(twin, name, x)
            if tried is None:
                continue
            likeness = _likeness(_asked(tried, x, y, objective)[0], reference)
        except Exception as error:  # a twin that cannot be made or asked is none, whatever the user's code raises
            trials.append(Trial(change=name, failure=f"{type(error).__name__}: {error}"))
            continue
        near = likeness.within(ALIKE if _coarse((*kept, name), x.device) else SAME)
        gain = _gain(twin, tried, x, y, objective) if near else None
        keep = gain is not None and gain >= (GAIN_OF_A_GRAPH if name == GRAPH else GAIN)
        trials.append(Trial(change=name, kept=keep, likeness=likeness, gain=gain))
        if keep and gain is not None:
            twin, speedup, off = tried, speedup * gain, likeness.outputs
            kept.append(name)
    return Preparation(
        model=twin.asked_by(Confirmed(model)) if kept else model,
        changes=tuple(kept),
        speedup=speedup,
        difference=off,
        seconds=time.perf_counter() - begin,
        trials=tuple(trials),
    )


def prepared(model: Model, changes: Sequence[str], x: Tensor) -> Model:
    """Return the twin that `changes` make, chosen earlier, without measuring; the model itself if there are none.

    Raises:
        ModelError: a change cannot be made here.
    """
    twin = model
    for name in changes:
        try:
            made = _changed(twin, name, x) if name in CHANGES else None
        except Exception:  # copying and tracing run the user's code, which may raise anything
            made = None
        if made is None:
            raise ModelError(
                f"the change {name!r}, with which this run began, cannot be made to {model.facts.source} here: start "
                "anew in another folder, or with the precision 'exact'."
            )
        twin = made
    return twin.asked_by(Confirmed(model)) if changes else model


@final
class ChannelsLast(nn.Module):
    """A network whose images lie in memory pixel by pixel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hands_on = bool(getattr(inner, "hands_on", False))
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Answer as the network does."""
        out: Tensor = self.inner(x.contiguous(memory_format=torch.channels_last))
        return out


def _folded(network: nn.Module, x: Tensor) -> nn.Module | None:
    return folded(network)


def _half(network: nn.Module, x: Tensor) -> nn.Module | None:
    floating = [each.dtype for each in network.parameters() if each.is_floating_point()]
    if not floating or set(floating) != {torch.float32} or not _computes_in_half(x.device):
        return None
    return halved(network, x)


def _computes_in_half(device: torch.device) -> bool:
    """Whether the processor has units for bfloat16; without them it is emulated, which may take minutes to find out."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    units: Mapping[str, object] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(units.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _channels_last(network: nn.Module, x: Tensor) -> nn.Module | None:
    return ChannelsLast(copy.deepcopy(network)) if x.ndim == 4 and x.shape[1] > 1 else None


def _captured(network: nn.Module, x: Tensor) -> nn.Module | None:
    if not x.is_cuda:
        return None
    given = x.to(half_precision(network) or x.dtype)  # as it comes through the door of `Model`
    return Captured(copy.deepcopy(network).requires_grad_(False), given)


def _rounded(network: nn.Module, x: Tensor) -> nn.Module | None:
    """Recorded kernels stay what they are, so that only there TF32 touches nothing else in the process."""
    if not isinstance(network, Captured) or torch.get_float32_matmul_precision() != "highest":
        return None
    if any(isinstance(part, Halved) for part in network.modules()):
        return None  # what is left in float32 there is left so for a reason
    return Captured(network.inner, x, tf32=True)


HALF = "bfloat16 inside"
GRAPH = "CUDA graph"
TF32 = "TF32"
CHANGES: dict[str, Callable[[nn.Module, Tensor], nn.Module | None]] = {
    "batch-norm folded": _folded,
    HALF: _half,
    "channels-last": _channels_last,
    GRAPH: _captured,
    TF32: _rounded,
}
"""What may be done to a network, in the order in which it is tried; exact up to rounding but for `HALF` and `TF32`."""


def _coarse(changes: Sequence[str], device: torch.device) -> bool:
    """Whether a twin rounds to fewer digits than float32, or the original does, as a GPU's convolutions by default."""
    if HALF in changes or TF32 in changes:
        return True
    if device.type != "cuda":
        return False
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # set by torch's newer switch, which the older one does not understand
        return True


def _steady(model: Model) -> bool:
    """Whether a model is a module whose answers are functions of the point alone, as far as is known."""
    network, facts = model.network, model.facts
    if not isinstance(network, nn.Module) or any(part.training for part in network.modules()):
        return False
    known = facts.deterministic is True and facts.batch_independent is not False
    return known and facts.answers == "gradient" and not model.oracles


def _changed(model: Model, name: str, x: Tensor) -> Model | None:
    """Return a model of the changed network, or None where the change does not apply.

    Raises:
        Exception: the change cannot be made.
    """
    assert isinstance(model.network, nn.Module)
    network = CHANGES[name](model.network, x)
    if network is None:
        return None
    return Model(network.requires_grad_(False), model.box, facts=model.facts)


def _asked(model: Model, x: Tensor, y: Tensor, objective: Objective) -> tuple[Evaluation, float]:
    """Return the answer with its gradient, and the seconds it took."""
    # On a processor the seconds of this process alone count: on a busy machine both networks would seem slow.
    clock = time.process_time if x.device.type == "cpu" else time.perf_counter
    begin = clock()
    found = model.evaluate(x, y, objective, need=Need.GRADIENT)
    float(found.value.nansum())  # waits for a device that answers later
    return found, clock() - begin


def _likeness(found: Evaluation, reference: Evaluation) -> Likeness:
    assert found.gradient is not None and reference.gradient is not None
    mine, other = flat(found.gradient).double(), flat(reference.gradient).double()
    cosine = nn.functional.cosine_similarity(mine, other, eps=1e-300)
    cosine = torch.where((mine == other).all(1), 1.0, cosine)  # two zeros are alike
    return Likeness(
        outputs=difference(found.outputs, reference.outputs) / (size_of(reference.outputs) or 1.0),
        changed=float((found.outputs.argmax(1) != reference.outputs.argmax(1)).double().mean()),
        slopes=float(cosine.mean()),
    )


def _gain(model: Model, tried: Model, x: Tensor, y: Tensor, objective: Objective) -> float:
    """Return how many times faster the one tried is, from the shortest times of both, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for each, held in zip((model, tried), times, strict=True):
            held.append(_asked(each, x, y, objective)[1])
        if times[1][0] > 1.5 * times[0][0]:
            break
    return min(times[0]) / min(times[1])
