"""How far the loss can be from its linear model at most: a guarantee from the weights, for smooth networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from steepest.basis.tensors import flat
from steepest.landscape.terrain import Terrain
from steepest.models.loading.adapt import Normalised
from steepest.models.model import Model
from steepest.models.objectives import CrossEntropy, Margin

_UP = 1 + 2.0**-40
"""Carries every constant over the roundings of its few float64 operations; sums of many terms see to themselves."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Remainder:
    """A bound on |L(p) − L(x) − ⟨∇L(x), p − x⟩| for every p of the region.

    Attributes:
        bound: ½·M·reach², float64 [N]; None where a layer or the objective has no rule.
        constant: M with ‖∇L(a) − ∇L(b)‖₁ ≤ M·‖a − b‖∞ for all a and b; None likewise.
        reach: how far any coordinate can go from x inside the region, float64 [N].
        reason: why there is no bound, "" if there is one.
    """

    bound: Tensor | None
    constant: float | None
    reach: Tensor
    reason: str = ""


def remainder_bound(terrain: Terrain) -> Remainder:
    """Return a guaranteed bound of the distance between the loss and its linear model, from the weights alone.

    For a chain of layers with known rules M follows from constants ℓ of each map and b of its derivative (both from
    ‖·‖∞ to ‖·‖∞): affine ℓ = largest row sum of |W|, b = 0; element by element ℓ = max |s'|, b = max |s''|; for g∘f
    ℓ = ℓ_g·ℓ_f and b = ℓ_g·b_f + b_g·ℓ_f². The last map is the cross-entropy (ℓ = 2, b = 1) or, for two classes,
    the margin (ℓ = 2, b = 0; one forward of one example counts the classes).

    Then |L(p) − L(x) − ⟨∇L(x), p − x⟩| ≤ ½·M·‖p − x‖∞², and no point of the region is better than FGSM's by more
    than M·reach². Constants are rounded up. The bound speaks of exact arithmetic, and of softplus without the cut at
    its threshold.

    Rules: Linear, Conv, AvgPool, BatchNorm in evaluation, Flatten, Identity, Dropout in evaluation, input
    normalisation, Tanh, Sigmoid, GELU (exact), SiLU, Softplus, nested in `Sequential`. Everything else has none, and
    the reason says what was met.

    Source: Taylor's theorem; the recursion is the product and chain rule for Lipschitz constants (e.g. Virmaux &
    Scaman 2018 for ℓ).

    >>> import steepest as st
    >>> x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> remainder_bound(Terrain.around(st.Model(layers), x, y, st.Linf(0.1))).reason
    'ReLU is not smooth: its slope jumps'
    >>> remainder_bound(Terrain.around(st.Model(layers[0]), x, y, st.Linf(0.1))).bound
    tensor([0.], dtype=torch.float64)
    """
    lower, upper = terrain.region.bounds
    x = terrain.x.double()
    moves = flat(torch.maximum(upper.double() - x, x - lower.double()))
    reach = moves.amax(1) if moves.shape[1] else moves.sum(1)
    try:
        slope, bend = 1.0, 0.0
        for own, curved in [*_constants(terrain.model), _objective(terrain)]:
            slope, bend = own * slope * _UP, (own * bend + curved * slope**2) * _UP
    except _NoRule as missing:
        return Remainder(bound=None, constant=None, reach=reach, reason=str(missing))
    return Remainder(bound=reach**2 * (bend / 2 * _UP), constant=bend, reach=reach)


class _NoRule(Exception):
    """A part that the recursion does not know."""


_CURVES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (1.0, 4 / (3 * math.sqrt(3))),
    nn.Sigmoid: (0.25, 1 / (6 * math.sqrt(3))),
    nn.GELU: (1.128905, math.sqrt(2 / math.pi)),
    nn.SiLU: (1.099840, 0.5),
}
"""max |s'| and max |s''|; the slopes of GELU and SiLU (1.1289044…, 1.0998393…) rounded up."""

_KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.MaxPool1d)
_KINKED_TOO = (nn.MaxPool2d, nn.MaxPool3d, nn.ELU, nn.CELU, nn.SELU, nn.AdaptiveMaxPool2d)
_STILL = {nn.Flatten, nn.Unflatten, nn.Identity}
_DROPOUTS: Set[type[nn.Module]] = {
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
}
_NORMS: Set[type[nn.Module]] = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
_POOLS = {nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d}
_LAYERS = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d}
"""Exact types: a class derived from one of these may do something else."""


def _objective(terrain: Terrain) -> tuple[float, float]:
    chosen = terrain.objective
    if isinstance(chosen, CrossEntropy):
        return 2.0, 1.0
    if isinstance(chosen, Margin):
        if terrain.model.logits(terrain.x[:1]).shape[1] == 2:
            return 2.0, 0.0
        raise _NoRule("the margin of more than two classes is not smooth: its slope jumps where the rival changes")
    raise _NoRule(f"{type(chosen).__name__} has no rule: take the cross-entropy")


def _constants(model: Model) -> Iterator[tuple[float, float]]:
    """Yield ℓ and b of each map from the input to the logits."""
    if model.oracles or model.facts.outputs == "probabilities":
        raise _NoRule("the model does not answer its network's outputs as they are")
    if not isinstance(model.network, nn.Module):
        raise _NoRule("the model is no module: its layers cannot be read")
    yield from _walked(model.network)


def _walked(part: Any) -> Iterator[tuple[float, float]]:
    kind = type(part)
    if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
        raise _NoRule(f"{kind.__name__} has a hook or a forward of its own")
    if kind is nn.Sequential:
        for child in part.children():
            yield from _walked(child)
    elif kind is Normalised:
        yield 1 / min(part.normalisation.std), 0.0
        if not isinstance(part.network, nn.Module):
            raise _NoRule("the network after the normalisation is no module: its layers cannot be read")
        yield from _walked(part.network)
    else:
        yield _layer(part, kind)


def _layer(part: Any, kind: type[nn.Module]) -> tuple[float, float]:
    if kind in _CURVES and getattr(part, "approximate", "none") == "none":
        return _CURVES[kind]
    if kind is nn.Softplus and part.beta > 0 and part.threshold >= 20:
        return 1.0, part.beta / 4
    for rules, rule in _RULES:
        if kind in rules:
            return rule(part), 0.0
    if isinstance(part, _KINKED + _KINKED_TOO):
        raise _NoRule(f"{kind.__name__} is not smooth: its slope jumps")
    raise _NoRule(f"{kind.__name__} has no rule")


def _row_sum(part: Any) -> float:
    weight = part.weight.detach().double()
    rows = weight.reshape(len(weight), -1).abs().sum(1)
    # A sum of n terms of one sign is off by at most n·2⁻⁵³ of it.
    terms: int = weight[0].numel()
    return float(rows.amax()) * (1 + terms * 2.0**-52)


def _norm(part: Any) -> float:
    if part.training or part.running_var is None:
        raise _NoRule(f"{type(part).__name__} uses the statistics of the batch: call .eval()")
    weight = torch.ones_like(part.running_var) if part.weight is None else part.weight.detach()
    return float((weight.double().abs() / (part.running_var.double() + part.eps).sqrt()).amax())


def _pool(part: Any) -> float:
    if getattr(part, "divisor_override", None):
        raise _NoRule(f"{type(part).__name__} with a divisor of its own has no rule")
    return 1.0


def _dropout(part: Any) -> float:
    if part.training:
        raise _NoRule(f"{type(part).__name__} draws random numbers: call .eval()")
    return 1.0


_RULES: list[tuple[Set[type[nn.Module]], Callable[[Any], float]]] = [
    (_LAYERS, _row_sum),
    (_NORMS, _norm),
    (_POOLS, _pool),
    (_DROPOUTS, _dropout),
    (_STILL, lambda _: 1.0),
]
