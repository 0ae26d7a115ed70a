"""Short texts that are equal exactly when what they describe is equal; parts of the plan's hash."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from types import FunctionType

import torch
from torch import Tensor


def ids_digest(ids: Tensor) -> str:
    """Return the sha256 of example ids."""
    return hashlib.sha256(ids.cpu().numpy().tobytes()).hexdigest()


def describe(thing: object) -> str:
    """Return a name with a hash of every tensor inside: a budget, an objective, or a user's function.

    >>> from steepest.budgets.linf import Linf
    >>> describe(Linf(0.5)), describe("ce")
    ('Linf(0.5)', 'ce')
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, FunctionType):
        code = hashlib.sha256(thing.__code__.co_code + repr(thing.__code__.co_consts).encode()).hexdigest()[:16]
        return f"{thing.__module__}.{thing.__qualname__}[{code}]"
    if not is_dataclass(thing):
        return repr(thing)
    parts = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, Tensor):
            parts.append(f"{field.name}={_tensor(value)}")
        elif is_dataclass(value):
            parts.append(f"{field.name}={describe(value)}")
    exact = _exact(thing)
    return f"{exact}[{', '.join(parts)}]" if parts else exact


def _exact(thing: object) -> str:
    """A label rounds numbers; two sizes that print alike must still differ."""
    epsilon = getattr(thing, "epsilon", None)
    return f"{type(thing).__name__}({epsilon!r})" if isinstance(epsilon, float) else repr(thing)


def _tensor(value: Tensor) -> str:
    content = value.detach().cpu().contiguous()
    shape = "×".join(map(str, content.shape))
    return f"<{shape} {hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]}>"
