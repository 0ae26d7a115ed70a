"""Autograd functions: one of ours, and everybody else's taken at what it computes instead of at what it claims."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import Function

Remark = Callable[[str, str], None]
"""Called with what kind of obstacle was met, and its name."""


def given(value: Tensor, slope: Tensor) -> Tensor:
    """Return `value` to the last bit, the sign of a zero included, with the derivative of `slope`, of its shape.

    >>> x = torch.tensor([-0.2], requires_grad=True)
    >>> given(x.round(), x)
    tensor([-0.], grad_fn=<_GivenBackward>)
    """
    answer: Tensor = _Given.apply(value.detach(), slope.to(value.dtype))  # type: ignore[no-untyped-call]
    return answer


@final
class _Given(Function):
    """The first argument, differentiated as the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, slope: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor]:
        return None, slopes[0]


@contextmanager
def taken_at_their_forward(remark: Remark) -> Iterator[None]:
    """Differentiate what the forwards of other people's functions compute, in this thread, until the end."""
    before = getattr(_here, "remark", None)
    _here.remark = remark
    _patch(+1)
    try:
        yield
    finally:
        _patch(-1)
        _here.remark = before


_here = threading.local()
_lock = threading.Lock()
_users = 0
_OWN = Function.__dict__["apply"]


def _patch(change: int) -> None:
    """Count who needs the patch: the first puts it in, the last takes it out, in whatever order threads come."""
    global _users
    with _lock:
        _users += change
        Function.apply = classmethod(_applied) if _users else _OWN  # type: ignore[assignment, method-assign]


def _applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
    remark = getattr(_here, "remark", None)
    # torch's own carry a module's backward hooks, and torch looks for them in the graph.
    if remark is None or cls is _Given or cls.__module__ == "torch.nn.modules._functions":
        return _own(cls, args, kwargs)
    followed = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
    if not followed:
        return _own(cls, args, kwargs)
    remark("custom backward", cls.__name__)
    try:
        apart = cls.setup_context is not Function.setup_context
        answer = cls.forward(*(() if apart else (_Context(args),)), *args, **kwargs)
    except Exception:  # a forward that needs the real context, or refuses its graph; whatever it raises
        return _own(cls, args, kwargs)
    parts = answer if isinstance(answer, tuple) else (answer,)
    if any(isinstance(part, Tensor) and part.requires_grad for part in parts):
        return answer
    like = next((each for each in followed if isinstance(answer, Tensor) and each.shape == answer.shape), None)
    if like is None or not answer.is_floating_point():
        return _own(cls, args, kwargs)
    return given(answer, like)


def _own(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunction():
        return _OWN.__get__(None, cls)(*args, **kwargs)


@final
class _Context:
    """What a forward may say to its backward, which nobody will ask."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.needs_input_grad = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        self.saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Forget them."""

    save_for_forward = mark_dirty = mark_non_differentiable = save_for_backward

    def set_materialize_grads(self, value: bool) -> None:
        """Forget it."""
