"""Operations of a forward are caught and handed to the rules that differentiate what has no useful derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steepest.models.functions import Remark, taken_at_their_forward
from steepest.models.scene import Call, Scene, followed
from steepest.models.substitutes import RULES

_SWITCHES = frozenset("set_grad_enabled inference_mode enter_inference_mode exit_inference_mode".split())


@contextmanager
def intercepted(network: object, remark: Remark) -> Iterator[None]:
    """Differentiate what `network` does inside by the rules; afterwards nothing of it is left, also if it failed."""
    try:
        with _Rules(Scene(remark)), taken_at_their_forward(remark):
            yield
    finally:
        if isinstance(network, nn.Module):
            _cut_off(network)


@final
class _Rules(TorchFunctionMode):
    """Every operation on tensors in this thread is answered by its rule, on the graph."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call.of(func, args, kwargs or {})
        # A tensor to write into cannot be part of a graph.
        if call.name in _SWITCHES or call.kwargs.get("out") is not None:
            return call.run()
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return self._answer(call)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            answer = self._answer(call)
        if followed(answer):
            self.scene.remark("graph cut", "no_grad")
        return answer

    def _answer(self, call: Call) -> Any:
        rule = RULES.get(call.name)
        return call.run() if rule is None or not call.args else rule(self.scene, call)


def _cut_off(network: nn.Module) -> None:
    """Take the tensors that a network keeps for later off the graph, as they would be without the rules."""
    for module in network.modules():
        for held in (vars(module), module._buffers):
            for name, value in list(held.items()):
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    # In place where that is possible: others may hold the same buffer, to put it back.
                    held[name] = value.detach() if value._is_view() else value.detach_()
