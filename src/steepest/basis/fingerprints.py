"""Short texts that are equal exactly when what they describe is equal; parts of the plan's hash."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType

import torch
from torch import Tensor


def ids_digest(ids: Tensor) -> str:
    """Return the sha256 of example ids."""
    return hashlib.sha256(ids.cpu().numpy().tobytes()).hexdigest()


def describe(thing: object) -> str:
    """Return a text with every number in full and a hash of every tensor and every piece of code inside.

    >>> from steepest.budgets.linf import Linf
    >>> describe(Linf(0.5)), describe("ce")
    ('Linf(0.5)', 'ce')
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Tensor):
        return _tensor(thing)
    if isinstance(thing, FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        parts = (_code(thing.__code__), *map(describe, (*held, *(thing.__defaults__ or ()))))
        return f"{thing.__module__}.{thing.__qualname__}[{_short(''.join(parts).encode())}]"
    if is_dataclass(thing) and not isinstance(thing, type):
        values = [getattr(thing, field.name) for field in fields(thing)]
        return f"{type(thing).__name__}({', '.join(map(describe, values))})"
    if isinstance(thing, tuple | list):
        return f"({', '.join(map(describe, thing))})"
    return repr(thing) if isinstance(thing, bool | int | float | None) else type(thing).__qualname__


def _code(code: CodeType) -> str:
    """What a function does: its instructions, names and constants, nested code included; no addresses."""
    constants = [_code(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _tensor(value: Tensor) -> str:
    content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"<{'×'.join(map(str, value.shape))} {_short(content)}>"


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
