"""ε as users give it (a number, one per example, one per feature) and as the sets use it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.tensors import expand, fits, number

Epsilon = float | Tensor


def checked(epsilon: Epsilon, name: str) -> Epsilon:
    """Return ε unchanged if every entry is finite and not negative.

    Raises:
        UsageError: names the offending value.
    """
    if isinstance(epsilon, int | float) and 0 <= epsilon < math.inf:
        return float(epsilon)
    try:
        value = torch.as_tensor(epsilon, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"{name}: ε = {epsilon!r} is not a number or a tensor of numbers; write 8 / 255, not a text."
        ) from None
    bad = value[~(torch.isfinite(value) & (value >= 0))]
    if bad.numel():
        raise UsageError(
            f"{name}: ε = {float(bad.flatten()[0])} is not allowed; ε must be finite and at least 0, in data units "
            "(8/255 for images in [0, 1])."
        )
    if isinstance(epsilon, Tensor):
        return epsilon
    return value if value.ndim else float(value)


def resolved(epsilon: Epsilon, shape: tuple[int, ...], name: str) -> Epsilon:
    """Return ε with the rank of `shape` [N, *features]: leading axis N (per example) or 1 (shared).

    A tensor of one axis and length N is one number per example; a tensor that broadcasts against one example
    ([C, 1, 1], [*features]) is one number per feature; a tensor of the full rank is taken as it is.

    Raises:
        UsageError: it fits neither way, or both (an [N, d] input with N = d): give [N, 1] or [1, d].
    """
    if not isinstance(epsilon, Tensor) or epsilon.numel() == 1:
        return float(epsilon)
    count, features = shape[0], tuple(shape[1:])
    per_example = tuple(epsilon.shape) == (count,)
    per_feature = epsilon.ndim <= len(features) and fits(tuple(epsilon.shape), features)
    if epsilon.ndim == len(shape) and fits(tuple(epsilon.shape), shape):
        return epsilon
    if per_example and per_feature:
        ones = [1] * len(features)
        raise UsageError(
            f"{name}: ε of shape {tuple(epsilon.shape)} could mean one number per example or one per feature of "
            f"inputs {tuple(shape)}. Give shape {[count, *ones]} for the first, {[*ones, features[-1]]} for the second."
        )
    if per_example:
        return expand(epsilon, torch.empty(0, *features))
    if per_feature:
        return epsilon.reshape(1, *[1] * (len(features) - epsilon.ndim), *epsilon.shape)
    raise UsageError(
        f"{name}: ε of shape {tuple(epsilon.shape)} does not fit inputs of shape {tuple(shape)}. Allowed: a number, "
        f"one per example [{count}], or one per feature (broadcastable against {features})."
    )


def rows(epsilon: Epsilon, index: Tensor) -> Epsilon:
    """Return a resolved ε for the examples that `index` selects."""
    return epsilon[index.to(epsilon.device)] if isinstance(epsilon, Tensor) and epsilon.shape[0] > 1 else epsilon


def per_feature(epsilon: Epsilon) -> bool:
    """Return whether a resolved ε may differ between the features of an example."""
    return isinstance(epsilon, Tensor) and math.prod(epsilon.shape[1:]) > 1


def per_example(epsilon: Epsilon, like: Tensor, name: str) -> Tensor:
    """Return ε as float64 [N] on the device of `like`.

    Raises:
        UsageError: ε differs between the features of an example.
    """
    if not isinstance(epsilon, Tensor):
        return torch.full((like.shape[0],), epsilon, dtype=torch.float64, device=like.device)
    wide = epsilon.to(like.device, torch.float64)
    if wide.ndim > 1:
        if per_feature(wide):
            raise UsageError(
                f"{name}: ε of shape {tuple(epsilon.shape)} differs between features, which this ball does not "
                "define. Give a number or one per example; for limits per feature use Linf or Weighted."
            )
        wide = wide.reshape(-1)
    return wide.expand(like.shape[0])


def per_coordinate(epsilon: Epsilon, like: Tensor) -> Tensor:
    """Return ε in float64 on the device of `like`, broadcastable against it."""
    if not isinstance(epsilon, Tensor):
        return number(epsilon, like)
    wide = epsilon.to(like.device, torch.float64)
    return expand(wide, like) if wide.ndim == 1 else wide


def scaled(epsilon: Epsilon, factor: float | Tensor) -> Epsilon:
    """Return ε · factor in float64; a factor per example [N] gives an ε per example."""
    if not isinstance(factor, Tensor):
        return epsilon.double() * factor if isinstance(epsilon, Tensor) else epsilon * float(factor)
    wide = factor.double()
    if isinstance(epsilon, Tensor) and epsilon.ndim > 1:
        wide = expand(wide, epsilon)
    return wide * (epsilon.to(wide) if isinstance(epsilon, Tensor) else epsilon)


def ratio(size: Tensor, epsilon: Tensor) -> Tensor:
    """Return size / ε in float64, with 0/0 = 0, a/0 = ∞, and more than 1 whenever size > ε, however close."""
    plain = (size / epsilon).masked_fill_(size == 0, 0.0)
    return torch.where(size > epsilon, plain.clamp_min(math.nextafter(1.0, 2.0)), plain)


def largest(epsilon: Epsilon) -> float:
    """Return the largest entry of ε, for axes and labels."""
    return float(torch.as_tensor(epsilon, dtype=torch.float64).max())


def text(epsilon: Epsilon) -> str:
    """Return ε for a label: the number, or the shape and range of a tensor."""
    if not isinstance(epsilon, Tensor):
        return f"{epsilon:.6g}"
    return f"<{'×'.join(map(str, epsilon.shape))} from {float(epsilon.min()):.6g} to {float(epsilon.max()):.6g}>"
