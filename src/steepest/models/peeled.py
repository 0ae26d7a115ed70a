"""A network of probabilities, asked for the logits behind its last softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steepest.models.model import Model, Network

_SOFTMAX: frozenset[Callable[..., Any]] = frozenset(
    {torch.softmax, Tensor.softmax, nn.functional.softmax, torch.special.softmax}
)


def behind_softmax(model: Model, x: Tensor) -> Model | None:
    """Return the model whose outputs are the logarithms of its probabilities, taken before they round to 0 and 1.

    Where the network ends in a softmax, which one forward at `x` shows, its logarithm is computed from what enters
    it: log p = z − logsumexp z, which never saturates, while log of a rounded p is flat. Predictions are the model's.

    Returns:
        None where the network's answer is not what a softmax returned, or is declared to be no probability.

    >>> sure = Model(lambda x: (500 * torch.stack([x.sum(1), 1 - x.sum(1)], 1)).softmax(1))
    >>> seen = behind_softmax(sure, torch.zeros(1, 2))
    >>> seen.logits(torch.tensor([[0.75, 0.5]]))
    tensor([[   0., -750.]])
    """
    network = Peeled(model.network)
    handle = Model(network, model.box, facts=replace(model.facts, outputs="logits"), oracles=model.oracles)
    with handle.borrowed(seed=0), torch.no_grad():
        handle.passed(x[:1])
    return handle if network.ends_in_softmax else None


@final
class Peeled(nn.Module):
    """A network whose last softmax answers its logarithm instead; whether the last answer came from one is kept."""

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner = inner
        self.hands_on = bool(getattr(inner, "hands_on", False))
        self.ends_in_softmax = False
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Answer log p; of the probabilities themselves where no softmax returned them."""
        with _Watch() as watch:
            out: Tensor = self.inner(x)
        found = watch.source(out)
        self.ends_in_softmax = found is not None
        if found is None:
            return out.clamp_min(torch.finfo(out.dtype).tiny).log()
        entered, dim = found
        answer: Tensor = entered.log_softmax(dim)
        return answer


class _Watch(TorchFunctionMode):
    """Remembers what entered each softmax, by what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[Tensor, Tensor, int]] = []

    def source(self, out: Tensor) -> tuple[Tensor, int] | None:
        """Return what entered the softmax that returned `out`, and along which axis, if one did."""
        for returned, entered, dim in reversed(self._seen):
            if returned is out:
                return entered, dim
        return None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[Any], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        entered = given.get("input", args[0] if args else None)
        dim = given.get("dim", args[1] if len(args) > 1 else None)
        if func in _SOFTMAX and isinstance(out, Tensor) and isinstance(entered, Tensor) and isinstance(dim, int):
            self._seen.append((out, entered, dim))
        return out
