"""The weights of a training that are judged and kept: the last ones, or an average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor, nn

from steepest.harden.averages import EMA, SWA, recomputed
from steepest.harden.course import Course
from steepest.harden.moment import put, tensors_of


@final
class Shown:
    """The last weights, their exponential average (`ema`), or the mean over late epoch ends (`swa`).

    Args:
        network: in training.
        batches: gives the training inputs, for the batch statistics of a mean.
    """

    def __init__(self, network: nn.Module, course: Course, batches: Callable[[], Iterable[Tensor]]) -> None:
        self._network, self._batches = network, batches
        self._begin = course.swa
        self._average = EMA(course.ema) if course.ema is not None else SWA() if course.swa is not None else None

    def stepped(self) -> None:
        """Take the weights after one more step."""
        if isinstance(self._average, EMA):
            self._average.add(_state(self._network))

    def closed(self, share: float) -> None:
        """Take the weights at the end of an epoch, a share of the training behind them."""
        if isinstance(self._average, SWA) and self._begin is not None and share >= self._begin:
            self._average.add(tensors_of(self._network))

    @contextmanager
    def put(self) -> Iterator[None]:
        """Let the network have these weights meanwhile."""
        average = self._average
        if average is None or not average.state:
            yield
            return
        own = tensors_of(self._network)
        try:
            put(self._network, average.state)
            if isinstance(average, SWA):
                recomputed(self._network, self._batches())
            yield
        finally:
            put(self._network, own)

    def state(self) -> dict[str, Any]:
        """Return the average so far: tensors and a number."""
        if self._average is None:
            return {"average": {}, "count": 0}
        return {
            "average": {name: tensor.clone() for name, tensor in self._average.state.items()},
            "count": self._average.count if isinstance(self._average, SWA) else 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        if self._average is None:
            return
        own = _state(self._network)
        self._average.state = {name: tensor.clone().to(own[name]) for name, tensor in state["average"].items()}
        if isinstance(self._average, SWA):
            self._average.count = state["count"]


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
