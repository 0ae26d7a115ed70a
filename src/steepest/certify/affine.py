"""The affine steps of a traced graph, as maps that can be applied, applied in absolute value, and transposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.basis.tensors import flat
from steepest.models.traced import Graph, Ref, Step

_aten = torch.ops.aten


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """The map (x₁, …) ↦ Σ Wᵢxᵢ + b of one step; every tensor has the examples (or rows) first.

    Attributes:
        sources: the steps that it takes, and `shapes` theirs for one example.
        value: Σ Wᵢxᵢ + b.
        spread: Σ |Wᵢ|rᵢ: how far the answer moves where coordinate j of source i moves by at most rᵢⱼ ≥ 0.
        pull: a ↦ (W₁ᵀa, …).
        mixing: an answer may depend on several coordinates of a source.
        rows: places [M] in the flattened answer ↦ the rows of W₁ there, [M, *shape]; None: pulled from unit vectors.
    """

    sources: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    value: Callable[..., Tensor]
    spread: Callable[..., Tensor]
    pull: Callable[[Tensor], tuple[Tensor, ...]]
    mixing: bool = False
    rows: Callable[[Tensor], Tensor] | None = None

    @cached_property
    def bias(self) -> Tensor | None:
        """b, [1, *shape]; None where it is 0."""
        found = self.value(*(torch.zeros(1, *shape, dtype=torch.float64) for shape in self.shapes))
        return found if bool(found.any()) else None


Rule = Callable[[Step, tuple[tuple[int, ...], ...]], "Affine | None"]

AFFINE: dict[str, Rule] = {}
"""By the operation's name; None: the step is not affine in its sources."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        AFFINE.update({f"aten.{name}" if name != "getitem" else name: rule for name in names})
        return rule

    return enter


def affine_of(graph: Graph, at: int) -> Affine | None:
    """Return step `at` of a graph as an affine map, or None if it is none.

    Raises:
        NoCertificateError: an operation that is affine only with other arguments than these.
    """
    step = graph.steps[at]
    rule = AFFINE.get(step.op)
    return None if rule is None else rule(step, tuple(graph.steps[source].shape for source in step.sources))


@_rule("convolution")
def _convolution(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    weight, bias = step.constant("weight"), step.constant("bias")
    if len(step.sources) > 1 or weight is None:
        return None
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    stride, padding, dilation, transposed, extra, groups = (step.given[name] for name in names)
    rest = (stride, padding, dilation, transposed, extra, groups)
    size = weight.abs()

    def pull(a: Tensor) -> tuple[Tensor]:
        like = a.new_empty(1).expand(len(a), *shapes[0])
        found = _aten.convolution_backward(a, like, weight, None, *rest, [True, False, False])
        return (found[0],)

    plain = not transposed and groups == 1 and len(stride) == 2
    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda x: _aten.convolution(x, weight, bias, *rest),
        spread=lambda r: _aten.convolution(r, size, None, *rest),
        pull=pull,
        mixing=True,
        rows=_patches(weight, step.shape, shapes[0], stride, padding, dilation) if plain else None,
    )


def _patches(
    weight: Tensor,
    out: tuple[int, ...],
    into: tuple[int, ...],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Callable[[Tensor], Tensor]:
    """Return what writes the kernels of single outputs to the places of the input that they look at."""
    _, height, width = out
    tall, wide = into[1] + 2 * padding[0], into[2] + 2 * padding[1]
    across = (torch.arange(n) * d for n, d in zip(weight.shape[2:], dilation, strict=True))
    down, right = torch.meshgrid(*across, indexing="ij")
    channels = torch.arange(into[0]) * tall * wide
    window = (channels[:, None] + (down * wide + right).flatten()).flatten()

    def rows(places: Tensor) -> Tensor:
        channel, spot = places // (height * width), places % (height * width)
        corner = (spot // width) * stride[0] * wide + (spot % width) * stride[1]
        made = weight.new_zeros(len(places), into[0] * tall * wide)
        made.scatter_(1, corner[:, None] + window, weight.flatten(1)[channel])
        whole = made.reshape(-1, into[0], tall, wide)
        return whole[:, :, padding[0] : tall - padding[0], padding[1] : wide - padding[1]].contiguous()

    return rows


@_rule("mm", "addmm")
def _matrix(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    first, second = ("mat1", "mat2") if step.op.endswith("addmm") else ("self", "mat2")
    weight = step.constant(second) if not isinstance(step.given[second], Ref) else None
    if weight is None or not isinstance(step.given[first], Ref) or len(step.sources) > 1:
        return None
    scale, share = float(step.given.get("alpha", 1)), float(step.given.get("beta", 1))
    weight = weight * scale
    shift = step.constant("self") if first == "mat1" else None
    bias = 0 if shift is None else shift * share
    size = weight.abs()
    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda x: x @ weight + bias,
        spread=lambda r: r @ size,
        pull=lambda a: (a @ weight.mT,),
        mixing=True,
        rows=lambda places: weight.mT[places],
    )


def _alike(value: Any, rank: int) -> Tensor:
    """Return a constant beside values of `rank` axes with one row for all examples."""
    # Python's numbers are float64 already, and would be rounded to float32 on the way.
    found = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    found = found.double()
    if found.ndim < rank:
        return found
    if not bool((found == found[:1]).all()):
        raise NoCertificateError("a constant of the network differs from example to example of a batch.")
    return found[:1]


@_rule("mul", "div")
def _scaled(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    ratio = step.op.endswith("div")
    one, other = step.given["self"], step.given["other"]
    if len(step.sources) > 1 or step.given.get("rounding_mode") or (ratio and isinstance(other, Ref)):
        return None
    factor = _alike(one if isinstance(other, Ref) else other, len(step.shape) + 1)
    factor = 1 / factor if ratio else factor
    shape = shapes[0]
    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda x: x * factor,
        spread=lambda r: r * factor.abs(),
        pull=lambda a: (_summed(a * factor, shape),),
    )


def _summed(a: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the transpose of broadcasting a source of `shape` to that of `a`."""
    missing = a.ndim - 1 - len(shape)
    if missing:
        a = a.sum(tuple(range(1, 1 + missing)))
    axes = tuple(axis for axis, size in enumerate(shape, 1) if size == 1 and a.shape[axis] != 1)
    return a.sum(axes, keepdim=True) if axes else a


@_rule("add", "sub", "rsub", "neg")
def _sum(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    alpha = float(step.given.get("alpha", 1))
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0), "neg": (-1.0, 0.0)}
    weights = dict(zip(("self", "other"), signs[step.op.removeprefix("aten.")], strict=True))
    parts = {name: step.given[name] for name in weights if name in step.given}
    moving = [weights[name] for name, part in parts.items() if isinstance(part, Ref)]
    rank = len(step.shape) + 1
    still = sum(weights[name] * _alike(part, rank) for name, part in parts.items() if not isinstance(part, Ref))
    if any(len(shape) != len(step.shape) for shape in shapes):
        return None  # a value that is broadcast along a new first axis would meet the batch
    zero = torch.zeros(1, *step.shape, dtype=torch.float64)
    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda *xs: zero + sum(w * x for w, x in zip(moving, xs, strict=True)) + still,
        spread=lambda *rs: zero + sum(abs(w) * r for w, r in zip(moving, rs, strict=True)),
        pull=lambda a: tuple(_summed(w * a, shape) for w, shape in zip(moving, shapes, strict=True)),
        mixing=len(step.sources) > 1,
    )


@_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm")
def _normalised(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    mean, variance = step.constant("running_mean"), step.constant("running_var")
    if step.given.get("training") or mean is None or variance is None:
        raise NoCertificateError(
            "a batch-norm layer in training mode answers an example by its batchmates: no certificate can speak of one "
            "alone. Put the network into evaluation mode (module.eval())."
        )
    weight, shift = step.constant("weight"), step.constant("bias")
    shape = (1, -1, *[1] * (len(step.shape) - 1))
    factor = ((1 if weight is None else weight) / (variance + float(step.given["eps"])).sqrt()).reshape(shape)
    moved = (0 if shift is None else shift).reshape(shape) if shift is not None else torch.zeros(1).double()
    bias = moved - mean.reshape(shape) * factor
    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda x: x * factor + bias,
        spread=lambda r: r * factor.abs(),
        pull=lambda a: (a * factor,),
    )


@_rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "_reshape_alias")
def _reshaped(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    def into(x: Tensor) -> Tensor:
        return x.reshape(len(x), *step.shape)

    def back(a: Tensor) -> tuple[Tensor]:
        return (a.reshape(len(a), *shapes[0]),)

    return Affine(sources=step.sources, shapes=shapes, value=into, spread=into, pull=back)


@_rule("getitem")
def _first(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    if step.given["index"] != 0:
        return None
    return Affine(sources=step.sources, shapes=shapes, value=lambda x: x, spread=lambda r: r, pull=lambda a: (a,))


_CHOOSING = (
    "cat permute transpose t slice select index constant_pad_nd expand slice_scatter select_scatter copy repeat flip "
    "roll stack upsample_nearest2d upsample_nearest1d reflection_pad2d replication_pad2d unfold"
)


@_rule(*_CHOOSING.split())
def _chosen(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    """An answer whose every value is one of the sources' values, or a constant: found by asking about their places."""
    sizes = [_size(shape) for shape in shapes]
    total = sum(sizes)
    places = torch.split(torch.arange(1, total + 1, dtype=torch.float64), sizes)
    here = _run(step, [part.reshape(shape) for part, shape in zip(places, shapes, strict=True)], blank=True)
    fixed = _run(step, [torch.zeros(shape, dtype=torch.float64) for shape in shapes], blank=False)
    index = here.flatten().long()  # 0 where a constant stands

    def gather(parts: tuple[Tensor, ...]) -> Tensor:
        whole = torch.cat([parts[0].new_zeros(len(parts[0]), 1), *(flat(part) for part in parts)], 1)
        return whole[:, index].reshape(len(whole), *step.shape)

    def pull(a: Tensor) -> tuple[Tensor, ...]:
        whole = a.new_zeros(len(a), total + 1).index_add_(1, index, flat(a))[:, 1:]
        return tuple(
            part.reshape(len(a), *shape) for part, shape in zip(torch.split(whole, sizes, 1), shapes, strict=True)
        )

    return Affine(
        sources=step.sources,
        shapes=shapes,
        value=lambda *xs: gather(xs) + fixed,
        spread=lambda *rs: gather(rs),
        pull=pull,
    )


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _run(step: Step, values: list[Tensor], *, blank: bool) -> Tensor:
    """Return the step's answer for one example where its sources have these values; `blank` makes constants 0."""
    left = iter(value.expand(step.count, *value.shape) for value in values)

    def put(given: Any) -> Any:
        if isinstance(given, Ref):
            return next(left)
        if isinstance(given, list | tuple):
            return type(given)(put(each) for each in given)
        if isinstance(given, Tensor) and given.is_floating_point():
            return torch.zeros_like(given) if blank else given
        return given

    # In the order of the operator's arguments, as the sources are.
    call: Any = step.call
    given = {arg.name: put(step.given[arg.name]) for arg in call._schema.arguments if arg.name in step.given}
    if blank and "value" in given:
        given["value"] = 0
    found = call(**given)
    first: Tensor = (found if isinstance(found, Tensor) else found[0])[0]
    return first.double()


@_rule("mean", "sum")
def _averaged(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    dims, rank, shape = step.given.get("dim"), len(shapes[0]) + 1, shapes[0]
    if dims is None:
        return None  # over the examples as well
    axes = tuple(sorted(dim % rank for dim in ([dims] if isinstance(dims, int) else dims)))
    if 0 in axes:
        return None
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape, 1))
    share = 1.0 if step.op.endswith("sum") else _size(kept) / _size(shape)

    def each(x: Tensor) -> Tensor:
        return x.sum(axes).reshape(len(x), *step.shape) * share

    def pull(a: Tensor) -> tuple[Tensor]:
        return ((a * share).reshape(len(a), *kept).expand(len(a), *shape),)

    return Affine(sources=step.sources, shapes=shapes, value=each, spread=each, pull=pull, mixing=True)


@_rule("avg_pool2d", "_adaptive_avg_pool2d")
def _pooled(step: Step, shapes: tuple[tuple[int, ...], ...]) -> Affine | None:
    names = (
        []
        if "adaptive" in step.op
        else "kernel_size stride padding ceil_mode count_include_pad divisor_override".split()
    )
    given = [step.given[name] for name in names]
    if (step.given.get("divisor_override") or 1) < 0:
        return None  # weights below 0, of which nobody makes an average
    size = [step.given["output_size"]] if "adaptive" in step.op else given
    into, back = (
        (_aten._adaptive_avg_pool2d, _aten._adaptive_avg_pool2d_backward)
        if "adaptive" in step.op
        else (_aten.avg_pool2d, _aten.avg_pool2d_backward)
    )

    def each(x: Tensor) -> Tensor:
        found: Tensor = into(x, *size)
        return found

    def pull(a: Tensor) -> tuple[Tensor]:
        return (back(a.contiguous(), a.new_zeros(1).expand(len(a), *shapes[0]), *given),)

    return Affine(sources=step.sources, shapes=shapes, value=each, spread=each, pull=pull, mixing=True)
