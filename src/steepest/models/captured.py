"""A network on a GPU whose passes are recorded once and replayed: no kernel is launched one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PARTS = 8
"""A batch is filled up to a whole number of eighths of the largest, so that so many recordings serve all sizes."""

_WARM = 3
"""Passes before a recording, in which libraries choose kernels and reserve memory."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passes:
    """A forward and the backward that belongs to it, on memory of their own, which every replay overwrites.

    Attributes:
        point, outputs: what `forward` reads and writes.
        cotangent, slope: what `backward` reads and writes, from what the last `forward` left in memory.
    """

    point: Tensor
    outputs: Tensor
    cotangent: Tensor
    slope: Tensor
    forward: Callable[[], object]
    backward: Callable[[], object]


class Record(Protocol):
    """How passes are recorded."""

    def __call__(self, network: nn.Module, point: Tensor, *, pool: Any, tf32: bool) -> Passes:
        """Return the passes of `network` for points such as `point`.

        Raises:
            Exception: they cannot be recorded.
        """


def recorded(network: nn.Module, point: Tensor, *, pool: Any, tf32: bool) -> Passes:
    """Return the passes as two CUDA graphs, which share the memory `pool` with all that were recorded in it before.

    Raises:
        Exception: the network waits for the GPU, or does what a graph cannot hold; memory is short.
    """
    point = point.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    side = torch.cuda.Stream(point.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(point.device))
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.enable_grad(), _tf32(tf32), torch.cuda.device(point.device), torch.cuda.stream(side):
        with _never_waiting():
            for _ in range(_WARM):
                outputs = network(point)
                torch.autograd.grad(outputs, point, torch.zeros_like(outputs))
        with torch.cuda.graph(forward, pool=pool, stream=side):
            outputs = network(point)
        cotangent = torch.zeros_like(outputs, requires_grad=False)
        with torch.cuda.graph(backward, pool=pool, stream=side):
            # What the forward left in memory is kept, so that a second backward finds it too.
            (slope,) = torch.autograd.grad(outputs, point, cotangent, retain_graph=True)
    torch.cuda.current_stream(point.device).wait_stream(side)
    return Passes(
        point=point.detach(),
        outputs=outputs.detach(),
        cotangent=cotangent,
        slope=slope.detach(),
        forward=forward.replay,
        backward=backward.replay,
    )


@final
class Captured(nn.Module):
    """A network that answers from recorded passes where it can, and by itself where it cannot.

    Replayed are forwards and input gradients (any cotangent, any number of times, in any order) of points of the
    type, device and shape of `x`, at most len(x) at once. Smaller batches are filled up with whatever lies there, so
    rows must not know each other. Everything else, and a size for which memory is short, is asked of the network.
    Recorded are addresses, not values: the network must stay where it is.

    Args:
        x: a batch of the largest size.
        tf32: in recordings float32 products may round their factors to TF32, though the process does not allow it.

    Raises:
        Exception: the largest size cannot be recorded.
    """

    def __init__(self, inner: nn.Module, x: Tensor, *, tf32: bool = False, record: Record = recorded) -> None:
        super().__init__()
        self.inner, self.tf32 = inner, tf32
        self.hands_on = bool(getattr(inner, "hands_on", False))
        self.training = False
        self._most, self._kind = len(x), (x.shape[1:], x.dtype, x.device)
        self._record = record
        self._pool = torch.cuda.graph_pool_handle() if x.is_cuda else None
        self._passes: dict[int, Passes | None] = {self._most: record(inner, x, pool=self._pool, tf32=tf32)}
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        """Answer as the network does."""
        passes = self._fitting(x)
        if passes is None:
            own: Tensor = self.inner(x)
            return own
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Replay.apply(x, self, passes)  # type: ignore[no-untyped-call]
            return out
        return self.replayed(passes, x)

    def replayed(self, passes: Passes, x: Tensor) -> Tensor:
        """Return the outputs at `x`; the memory of all recordings now belongs to this turn."""
        self.turn += 1
        passes.point[: len(x)].copy_(x.detach())
        passes.forward()
        return passes.outputs[: len(x)].clone()

    def _fitting(self, x: Tensor) -> Passes | None:
        if not 0 < len(x) <= self._most or (x.shape[1:], x.dtype, x.device) != self._kind:
            return None
        size = filled(len(x), self._most)
        if size not in self._passes:
            rows = torch.arange(size, device=x.device) % len(x)
            try:
                self._passes[size] = self._record(self.inner, x.detach()[rows], pool=self._pool, tf32=self.tf32)
            except Exception:  # most likely memory; the network itself may still fit
                self._passes[size] = None
        return self._passes[size]


def filled(count: int, most: int) -> int:
    """Return the size to which a batch of `count` is filled up: a whole number of eighths of the largest.

    >>> [filled(count, 256) for count in (1, 32, 33, 256)], filled(9, 10)
    ([32, 32, 64, 256], 10)
    """
    step = -(-most // _PARTS)
    return min(most, -(-count // step) * step)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, network: Captured, passes: Passes) -> Tensor:
        ctx.save_for_backward(x)
        ctx.network, ctx.passes = network, passes
        outputs = network.replayed(passes, x)
        ctx.turn = network.turn
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if ctx.turn != ctx.network.turn:  # another forward lies in memory now
            ctx.network.replayed(ctx.passes, x)
            ctx.turn = ctx.network.turn
        ctx.passes.cotangent[: len(x)].copy_(cotangent)
        ctx.passes.backward()
        # As the points lie in memory, or every step of a search would mix two orders.
        return ctx.passes.slope[: len(x)].clone(memory_format=torch.contiguous_format), None, None


@contextmanager
def _tf32(wanted: bool) -> Iterator[None]:
    """Let products round to TF32 inside; what the process allows is afterwards as it was.

    Raises:
        RuntimeError: the process uses torch's newer switch, which the older one does not understand.
    """
    if not wanted or torch.get_float32_matmul_precision() != "highest":
        yield
        return
    switch: Any = torch.backends.cuda.matmul
    newer = getattr(switch, "fp32_precision", None)
    switch.allow_tf32 = True
    try:
        yield
    finally:
        switch.allow_tf32 = False
        if newer is not None:
            switch.fp32_precision = newer


@contextmanager
def _never_waiting() -> Iterator[None]:
    """Raise inside where something waits for the GPU: a recording that fails on it leaves torch in disorder."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype.*")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
