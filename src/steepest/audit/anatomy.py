"""What a model is like around some examples: its gradients, how straight its loss is, what its layers do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steepest.attacks.api import attack
from steepest.audit.ceilings import Ceilings, ceilings
from steepest.basis.errors import ModelError, UsageError
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.certify.stretching import StepBound
from steepest.landscape.gradients import gradient_statistics
from steepest.landscape.linearity import linearity
from steepest.landscape.saturation import saturation
from steepest.landscape.stretch import stretch
from steepest.landscape.terrain import Terrain, gradient_of
from steepest.models.model import Model
from steepest.models.objectives import objective_of

OBJECTIVES = ("margin", "ce", "scaled-ce", "dlr")
WAYS = ("fgsm", "pgd", "random")
"""Directions in which layers are watched: FGSM's, of 20 steps of PGD, and a random corner of the region."""

_PGD = "pgd(steps=20)"
_CORNER = 1 << 23
"""The examples' stream that gives the random corner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """The gradients at x under one objective; None where they were not measured, for `reason`.

    Attributes:
        size: median over the examples of the largest |gᵢ|.
        gain: median of the largest first-order gain, max ⟨g, p − x⟩ over the region.
        zero: share of the examples whose gradient is exactly zero.
    """

    objective: str
    size: float | None = None
    gain: float | None = None
    zero: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One call of a layer; None where it has no such number.

    Attributes:
        flat: median share of units with a slope of exactly 0, of an activation that is known.
        fgsm, pgd, random: median of ‖change of its answer‖₂ / ‖change of its input‖₂ in that direction.
        norm: what that ratio cannot exceed between any two inputs.
        share: its part of the logarithm of all norms that amplify.
    """

    name: str
    kind: str
    flat: float | None = None
    fgsm: float | None = None
    pgd: float | None = None
    random: float | None = None
    norm: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A model around some examples, inside one budget.

    Attributes:
        count: how many examples were looked at.
        gradients: one for each of `OBJECTIVES`.
        curved: median of γ / promised: the largest distance found between the margin and its linear model, in units of
            the largest first-order gain. 0 for a model that is linear there.
        kept: median of gained / promised at FGSM's point: the part of its promise that FGSM keeps.
        reason: why those two were not measured.
        layers: in the order of calls.
        whole: the network from its input to its outputs (of probabilities, their logarithms less the mean).
        ceilings: the Lipschitz constants that its weights allow.
    """

    count: int
    gradients: tuple[Slope, ...]
    curved: float | None
    kept: float | None
    reason: str
    layers: tuple[Layer, ...]
    whole: Layer
    ceilings: Ceilings

    @property
    def amplifier(self) -> Layer | None:
        """The layer that stretches FGSM's direction most, or where there is none the random one."""
        for way in ("fgsm", "random"):
            known = [layer for layer in self.layers if getattr(layer, way) is not None]
            if known:
                return max(known, key=lambda layer: float(getattr(layer, way)))
        return None


def anatomy(model: Model, x: Tensor, y: Tensor, budget: Budget, *, ids: Tensor | None = None, seed: int = 0) -> Anatomy:
    """Look at a model around x [N, *features], inside `budget`: about 40 forwards and 40 backwards an example.

    Directions and linearity are those of the margin, which never saturates. What a model does not offer (gradients,
    modules) is None, never 0.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
    >>> _ = net[0].weight.data.copy_(3 * torch.eye(2))
    >>> found = anatomy(st.Model(net), torch.full((1, 2), 0.5), torch.tensor([0]), st.Linf(0.1))
    >>> round(found.whole.fgsm, 3), found.layers[1].flat, found.gradients[0].size, round(found.kept, 3)
    (3.0, 0.0, 3.0, 1.0)
    """
    names = torch.arange(len(x), device=x.device) if ids is None else ids.to(x.device)
    ground = Terrain(
        model=model,
        objective=objective_of("margin"),
        region=Region(budget, model.box, x),
        y=y,
        stream=Stream.of(seed, names),
    )
    with model.borrowed(seed):
        gradients = tuple(_slope(ground, name) for name in OBJECTIVES)
        curved, kept, reason = _straightness(ground)
        points = _points(ground, budget, names, seed)
        layers = _layers(model, x, points)
        whole = Layer(name="", kind="whole network", **{way: _whole(model, x, point) for way, point in points.items()})
    bounds, steps = ceilings(model, tuple(x.shape[1:]), [(layer.name, layer.kind) for layer in layers])
    return Anatomy(
        count=len(x),
        gradients=gradients,
        curved=curved,
        kept=kept,
        reason=reason,
        layers=tuple(_bounded(layer, steps.get(at)) for at, layer in enumerate(layers)),
        whole=whole,
        ceilings=bounds,
    )


def _bounded(layer: Layer, step: StepBound | None) -> Layer:
    return layer if step is None else replace(layer, norm=step.own, share=step.share)


def _slope(ground: Terrain, name: str) -> Slope:
    try:
        found = gradient_statistics(ground.with_objective(objective_of(name)))
    except UsageError as error:  # dlr has no meaning for two classes
        return Slope(objective=name, reason=str(error))
    if not found.available:
        return Slope(objective=name, reason=found.reason)
    zero = float(found.zero.double().mean()) if len(found.zero) else None
    return Slope(objective=name, size=_median(found.size), gain=_median(found.gain), zero=zero)


def _straightness(ground: Terrain) -> tuple[float | None, float | None, str]:
    """Return γ / promised and gained / promised, or why there is no such number."""
    try:
        found = linearity(ground)
    except ModelError as error:
        return None, None, str(error)
    flat = found.predicted == 0
    if flat.double().mean() >= 0.5:
        return None, None, "the gradient promises nothing at half of the examples or more"
    return _median(found.relative), _median(found.gained / found.predicted), ""


def _points(ground: Terrain, budget: Budget, ids: Tensor, seed: int) -> dict[str, Tensor]:
    points = {"random": ground.region.corner(ground.stream.split(_CORNER), 0)}
    try:
        points["fgsm"] = ground.region.extreme(gradient_of(ground.gradient(ground.x)))
        assert ground.y is not None
        points["pgd"] = attack(
            _PGD, ground.model, ground.x, ground.y, budget, objective="margin", seed=seed, ids=ids, drop_solved=False
        ).point
    except (ModelError, UsageError):  # a model without gradients, which the gradients' rows say
        return points
    return points


def _layers(model: Model, x: Tensor, points: dict[str, Tensor]) -> tuple[Layer, ...]:
    """Return every call of a layer, put together from three walks and a look at the activations."""
    found: dict[tuple[str, int], Layer] = {}
    for way, point in points.items():
        stretched = stretch(model, x, point)
        for key, each in zip(_keys(each.name for each in stretched), stretched, strict=True):
            layer = found.setdefault(key, Layer(name=each.name, kind=each.kind))
            found[key] = replace(layer, **{way: _median(each.own)})  # type: ignore[arg-type]
    flat = saturation(model, x)
    for key, one in zip(_keys(one.name for one in flat), flat, strict=True):
        if key in found:
            found[key] = replace(found[key], flat=_median(one.share))
    return tuple(found.values())


def _keys(names: Iterable[str]) -> list[tuple[str, int]]:
    """Return each name with the number of its call."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _whole(model: Model, x: Tensor, point: Tensor) -> float | None:
    moved = (point.double() - x.double()).flatten(1).norm(dim=1)
    change = model.logits(point).double() - model.logits(x).double()
    if model.facts.outputs == "probabilities":
        # Logits behind a softmax are known up to one number of each example.
        change = change - change.mean(1, keepdim=True)
    return _median(change.norm(dim=1) / moved)


def _median(values: Tensor) -> float | None:
    """Return the median over the examples that have a number; None where none has, or where it is not finite."""
    known = values[~torch.isnan(values)].double()
    middle = float(known.median()) if known.numel() else math.nan
    return middle if math.isfinite(middle) else None
