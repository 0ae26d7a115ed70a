"""An operation that was caught, and what is remembered of the forward that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from steepest.models.functions import Remark, given

_INPLACE = frozenset("__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__".split())
_POSITIONAL = frozenset("hardtanh relu6 hardsigmoid".split())


@final
@dataclass(frozen=True, slots=True)
class Call:
    """An operation with its arguments; `name` without underscores at its ends and without an overload."""

    function: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @staticmethod
    def of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return the call; a property is named as such, and an `input` by keyword becomes the first argument."""
        name = getattr(function, "__name__", "")
        name = getattr(function.__self__, "__name__", "") if name == "__get__" else name.partition(".")[0].strip("_")
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {key: each for key, each in kwargs.items() if key != "input"}
        return Call(function, name, args, kwargs)

    @property
    def inplace(self) -> bool:
        """Whether the first argument is changed."""
        name = getattr(self.function, "__name__", "").partition(".")[0]
        return (
            (name.endswith("_") and not name.endswith("__"))
            or name in _INPLACE
            or self.kwargs.get("inplace") is True
            or (self.name in _POSITIONAL and self.args[-1] is True)
        )

    def run(self) -> Any:
        """Return what the operation answers."""
        return self.function(*self.args, **self.kwargs)

    def on(self, first: Any) -> Any:
        """Return what it answers with another first argument."""
        return self.function(first, *self.args[1:], **self.kwargs)

    def given(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """What is remembered during one forward.

    Attributes:
        remark: told about every obstacle.
        behind: from tensors of integers or truths to the float tensors behind them.
        chosen: from tensors of indices to a function that tells how nearly each entry was chosen, and along which axis.
    """

    remark: Remark
    behind: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    chosen: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)

    def soft(self, tensor: Any) -> Any:
        """Return what stands behind a tensor, or itself."""
        return self.behind[tensor] if isinstance(tensor, Tensor) and tensor in self.behind else tensor

    def source(self, call: Call) -> Any:
        """Return what a call's first argument depends on, as it was before the call."""
        soft = self.soft(call.args[0])
        return soft.clone() if call.inplace and followed(soft) else soft

    def answer(self, call: Call, value: Any, slope: Tensor) -> Any:
        """Return `value` with the derivative of `slope`, or remember it where the value cannot have one."""
        if not isinstance(value, Tensor) or value.shape != slope.shape:
            return value
        if not value.is_floating_point() or value.is_quantized:
            numbers = value.dequantize() if value.is_quantized else value
            self.behind[value] = given(numbers.to(slope.dtype), slope)
            return value
        answer = given(value, slope)
        return call.args[0].copy_(answer) if call.inplace else answer


def followed(tensor: Any) -> bool:
    """Return whether the input's graph reaches this."""
    return isinstance(tensor, Tensor) and tensor.requires_grad


def value_of(call: Call) -> Any:
    """Return what a call answers, off the graph and without changing its first argument."""
    plain = call.args[0].detach()
    return call.on(plain.clone() if call.inplace else plain)
