"""Where a perturbation grows on its way through the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from steepest.basis.tensors import flat
from steepest.models.model import Model


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerStretch:
    """One call of a layer; ratios are float64 [N], NaN for 0/0.

    Attributes:
        name: of the module in its network, "" for the network itself.
        kind: the module's class.
        ratio: ‖h(p) − h(x)‖₂/‖p − x‖₂ of the layer's answer h.
        own: the same over the change of the layer's own input: above 1 it amplifies. In a chain that is the ratio to
            the layer before.
    """

    name: str
    kind: str
    ratio: Tensor
    own: Tensor


def stretch(model: Model, x: Tensor, point: Tensor) -> tuple[LayerStretch, ...]:
    """Return how each leaf module stretches the way from x to `point`, both [N, *features], in the order of calls.

    Asks the network itself (past the model's oracles) once about 2N inputs. Layers whose input or answer is no
    tensor with the examples first are left out, and so are operations that are no modules; () for a plain function.
    The network is left without hooks, also after an exception.

    >>> import steepest as st
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
    >>> _ = net[0].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, -1.5]]))
    >>> [(s.kind, s.ratio.tolist()) for s in stretch(st.Model(net), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))]
    [('Linear', [2.0]), ('ReLU', [2.0])]
    """
    found: list[LayerStretch] = []
    count, moved = len(x), torch.linalg.vector_norm(flat(point.double() - x.double()), dim=1)

    def change(value: object) -> Tensor | None:
        if not isinstance(value, Tensor) or value.shape[:1] != (2 * count,) or not value.is_floating_point():
            return None
        rows = flat(value.detach().double())
        size: Tensor = torch.linalg.vector_norm(rows[count:] - rows[:count], dim=1)
        return size

    def seen(name: str, layer: nn.Module, given: Tensor | None, answer: object) -> None:
        after = change(answer)
        if given is not None and after is not None:
            kind = type(layer).__name__
            found.append(LayerStretch(name=name, kind=kind, ratio=after / moved, own=after / given))

    with watched(model, change, seen), model.borrowed(), torch.no_grad():
        model.passed(torch.cat([x, point]))
    return tuple(found)


@contextmanager
def watched(
    model: Model, before: Callable[[object], Any], after: Callable[[str, nn.Module, Any, object], None]
) -> Iterator[None]:
    """Let two functions see every call of a leaf module: `before` its input, `after` what that returned and its answer.

    Inputs are seen before the layer runs, since it may work in place. Nothing stays on the network.
    """
    handles = []
    try:
        for name, layer in _leaves(model):
            pending: list[Any] = []

            def enter(_: nn.Module, given: tuple[Any, ...], kept: list[Any] = pending) -> None:
                kept.append(before(given[0] if given else None))

            def leave(layer: nn.Module, _: object, answer: object, kept: list[Any] = pending, name: str = name) -> None:
                after(name, layer, kept.pop(), answer)

            handles.append(layer.register_forward_pre_hook(enter))
            handles.append(layer.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leaves(model: Model) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model.network, nn.Module):
        for name, part in model.network.named_modules():
            if not next(part.children(), None):
                yield name, part
