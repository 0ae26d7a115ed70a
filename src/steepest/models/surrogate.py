"""A network that answers as it does, and whose gradient passes through what has none, found without being told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from steepest.basis.errors import ModelError
from steepest.models.interception import intercepted
from steepest.models.model import Model, Network


def surrogate(model: Model | Network) -> Model:
    """Return the model with a gradient that passes what has none; its answers are the model's own, bit by bit.

    The operations of a forward that is differentiated are watched, and some are differentiated as something else,
    while all weights stay (the backward pass differentiable approximation of Athalye et al. 2018, applied by itself):

    - rounding, casts to integers, fake quantisers: the identity;
    - sign, comparisons, argmax with one-hot: a soft step or choice, whose tail is heavy enough never to be 0;
    - clamps with two ends, hard and ordinary sigmoids, where they are saturated: such a tail; a ReLU stays a ReLU,
      and so does the lower end of a ReLU6;
    - detached tensors and no_grad: stay on the graph; hooks on gradients are left out;
    - a custom autograd function: its forward is differentiated, whatever its backward says;
    - √, log, powers, quotients where their slope is not finite: 0.

    Elsewhere the gradient is the model's own. Values are asked of the model alone. What leaves torch (NumPy), or is
    compiled (TorchScript), is not seen: see `st.straight_through`, `st.estimated`.

    Args:
        model: a handle, with its oracles; a module or a function of torch operations (box [0, 1]).

    Raises:
        ModelError: the model answers plain scores or labels, so that there is nothing to differentiate.

    Source: Athalye, Carlini & Wagner 2018, section 4.1.

    >>> blind = Model(lambda x: torch.stack([(9 * x).round().sum(1), 9 - x.detach().sum(1)], 1))
    >>> from steepest.models.contract import Need
    >>> from steepest.models.objectives import Margin
    >>> ask = torch.full((1, 2), 0.25), torch.tensor([0]), Margin()
    >>> surrogate(blind).evaluate(*ask, need=Need.GRADIENT).gradient
    tensor([[-10., -10.]])
    """
    handle = model if isinstance(model, Model) else Model(model)
    if handle.facts.answers != "gradient":
        raise ModelError(
            f"surrogate: the model answers {handle.facts.answers} of plain arrays, whose operations cannot be watched; "
            "use st.estimated(model), or an attack that needs no gradient: `steepest list attacks`."
        )
    facts = replace(handle.facts, source=f"{handle.facts.source}, through its surrogate", sha256="")
    return Model(_Surrogate(handle.network), handle.box, facts=facts, oracles=handle.oracles)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """An operation of a forward that hides, or could hide, a gradient.

    Attributes:
        name: of the operation, or of a custom autograd function.
        kind: "no gradient", "saturates", "random", "graph cut" or "custom backward".
        module: where it happened, a name of `network.named_modules()`; "" for the network itself.
        count: how often, in one forward.
    """

    name: str
    kind: str
    module: str
    count: int


def found_obstacles(model: Model | Network, x: Tensor) -> tuple[Obstacle, ...]:
    """Return what a forward at `x` [N, ...] meets on its way from the input, in the order of the first meeting.

    Evidence, not a verdict: an honest network may round too. What `surrogate` cannot watch is not listed.

    >>> found_obstacles(nn.Sequential(nn.Linear(2, 2), nn.Hardtanh(0, 1)), torch.full((1, 2), 50.0))[0].module
    '1'
    """
    handle = model if isinstance(model, Model) else Model(model)
    met: Counter[tuple[str, str, str]] = Counter()
    inside = [""]

    def remark(kind: str, name: str) -> None:
        met[name, kind, inside[-1]] += 1

    point = x.detach().clone().requires_grad_()
    watched = _followed(handle.network, inside), intercepted(handle.network, remark)
    with handle.borrowed(), torch.enable_grad(), watched[0], watched[1]:
        handle.passed(point)
    return tuple(
        Obstacle(name=name, kind=kind, module=module, count=count) for (name, kind, module), count in met.items()
    )


@contextmanager
def _followed(network: Network, inside: list[str]) -> Iterator[None]:
    """Keep the name of the module that works, by hooks that are gone afterwards."""
    parts = network.named_modules() if isinstance(network, nn.Module) else iter(())
    hooks = []

    def entering(name: str) -> Any:
        return lambda module, args: inside.append(name)

    def leaving(module: nn.Module, args: Any, answer: Any) -> None:
        inside.pop()

    try:
        for name, part in parts:
            if name:
                hooks.append(part.register_forward_pre_hook(entering(name)))
                hooks.append(part.register_forward_hook(leaving))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@final
class _Surrogate(nn.Module):
    """A network whose operations are watched while it is asked for a gradient."""

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner = inner
        self.hands_on = getattr(inner, "hands_on", False)
        self.training = getattr(inner, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.inner(x)
        with intercepted(self.inner, _unheard):
            return self.inner(x)


def _unheard(kind: str, name: str) -> None:
    """Say nothing."""
