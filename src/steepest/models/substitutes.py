"""What an operation without a useful derivative is differentiated as: a table from operations to rules.

A rule leaves the answer as it is. A tensor of integers or truths has no derivative of its own: what stands behind it,
a float tensor of the same numbers, is remembered until it becomes floating again.
"""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from steepest.models.functions import given
from steepest.models.scene import Call, Scene, followed, value_of

_INDEXED = frozenset("getitem index_select gather select narrow".split())
"""Only their first argument is taken for what stands behind it: an index must stay one."""


_STEP = 0.1
"""A soft step's width over the mean distance of an example's numbers from it: wider ones drown what is near a step."""

Rule = Callable[[Scene, Call], Any]


def _unit(x: Tensor) -> Tensor:
    """Return the mean size of each example's numbers, the scale on which a layer's steps look smooth."""
    size = x.detach().abs()
    size = size.mean(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else size
    return size.clamp_min(1e-6)


def soft_sign(x: Tensor) -> Tensor:
    """Return x/(w + |x|), w a tenth of the example's mean |x|: its slope w/(w + |x|)² vanishes nowhere."""
    width = _STEP * _unit(x)
    return x / (width + x.abs())


def soft_step(x: Tensor) -> Tensor:
    """Return (1 + soft sign)/2."""
    return (1 + soft_sign(x)) / 2


def soft_choice(scores: Tensor, axis: int) -> Tensor:
    """Return softmax of scores over a quarter of the gap of the best two.

    A sure choice has a slope as well, and most of it is that of the two: wider ones follow classes out of reach.
    """
    if scores.shape[axis] < 2:
        return scores.softmax(axis)
    best = scores.detach().topk(2, axis)[0]
    gap = (best.narrow(axis, 0, 1) - best.narrow(axis, 1, 1)).clamp_min(1e-6)
    return (4 * scores / gap).softmax(axis)


def _rounded(scene: Scene, call: Call) -> Any:
    """A staircase that stays near the identity, which it is differentiated as."""
    source = scene.source(call)
    if not followed(source):
        return call.run()
    value = value_of(call)
    scene.remark("no gradient", call.name)
    return scene.answer(call, value, source)


def _divided(scene: Scene, call: Call) -> Any:
    """A rounded quotient is differentiated as the quotient."""
    if call.name == "div" and call.kwargs.get("rounding_mode") is None:
        return _calm(scene, call)
    source, other = scene.source(call), scene.soft(call.args[1])
    if not (followed(source) or followed(other)):
        return call.run()
    value = value_of(call)
    scene.remark("no gradient", call.name)
    return scene.answer(call, value, source / other)


def _cast(scene: Scene, call: Call) -> Any:
    """A conversion to integers cuts digits off; one from integers or truths brings back what stands behind them."""
    source = call.args[0]
    value, slope = call.run(), scene.soft(source)
    if not followed(slope) or (slope is source and (value.is_floating_point() or value.dtype is torch.bool)):
        return value
    if slope is source:
        scene.remark("no gradient", call.name)
    return scene.answer(call, value, slope)


def _signed(scene: Scene, call: Call) -> Any:
    """A jump, differentiated as a soft one."""
    source = scene.source(call)
    if not followed(source):
        return call.run()
    value = value_of(call)
    scene.remark("no gradient", call.name)
    return scene.answer(call, value, soft_sign(source) if call.name in ("sign", "sgn") else soft_step(source))


def _compared(scene: Scene, call: Call) -> Any:
    """A truth, behind which stands a soft step of the difference."""
    value = call.run()
    a, b = (scene.soft(each) for each in call.args[:2])
    if isinstance(value, Tensor) and (followed(a) or followed(b)):
        scene.remark("no gradient", call.name)
        scene.answer(call, value, soft_step(b - a if call.name[0] == "l" else a - b))
    return value


_LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "and": operator.mul,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: a + b - 2 * a * b,
}


def _logic(scene: Scene, call: Call) -> Any:
    """Truths are combined as probabilities of independent events are."""
    softs = [scene.soft(each) for each in call.args]
    value = call.run()
    if not any(map(followed, softs)) or value.dtype is not torch.bool or call.inplace:
        return value
    a = softs[0]
    word = call.name.removeprefix("logical_").removeprefix("bitwise_")
    slope = 1 - a if word in ("not", "invert") else _LOGIC[word](a, softs[1])
    return scene.answer(call, value, slope)


def _carried(scene: Scene, call: Call) -> Any:
    """What is done with integers or truths is done with what stands behind them."""
    if not len(scene.behind):
        return call.run()
    found: list[Tensor] = []

    def behind(each: Any) -> Any:
        soft = scene.soft(each)
        if soft is not each:
            found.append(soft)
        return soft

    reached = call.args[:1] if call.name in _INDEXED else call.args
    args, kwargs = (*tree_map(behind, reached), *call.args[len(reached) :]), call.kwargs
    if not found:
        return call.run()
    value = value_of(call) if call.inplace else call.run()
    first = (args[0].clone(),) if call.inplace else args[:1]
    return scene.answer(call, value, call.function(*first, *args[1:], **kwargs))


def _selected(scene: Scene, call: Call) -> Any:
    """A choice between a and b by a truth changes by a − b as the truth does."""
    first, second, third = (call.given(at, name) for at, name in enumerate(("condition", "mask", "value")))
    third = call.kwargs.get("other", third)
    if call.name == "masked_fill":
        condition, a, b = second, third, first
    elif scene.soft(first) is not first:
        condition, a, b = first, call.kwargs.get("input", second), third
    else:
        condition, a, b = call.kwargs.get("condition", second), first, third
    slope = scene.soft(condition)
    if slope is condition:
        return call.run()
    value = value_of(call) if call.inplace else call.run()
    difference = torch.as_tensor(_plain(a) - _plain(b)).nan_to_num(0, 0, 0)
    kept = call.on(call.args[0].clone()) if call.inplace else value
    return scene.answer(call, value, kept + difference * (slope - slope.detach()))


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _clamped(scene: Scene, call: Call) -> Any:
    """A clamp goes on beyond its ends, ever more slowly, and the more of an example is there the more it counts."""
    lower, upper, scale, shift = _bounds(call)
    source = scene.source(call)
    if not followed(source) or upper is None or (lower is None and not (isinstance(upper, int | float) and upper == 6)):
        return call.run()
    x = source * scale + shift if scale != 1 else source
    over = (x - upper).relu()
    under = torch.zeros_like(x) if lower is None else (lower - x).relu()
    outside = (over + under > 0).detach()
    if not bool(outside.any()):
        return call.run()
    scene.remark("saturates", call.name)
    value = value_of(call)
    floor = 0.0 if lower is None else lower
    width = torch.maximum(_unit(x - (upper + floor) / 2), torch.as_tensor((upper - floor) / 2, dtype=x.dtype))
    tail = over * width / (width + over) - under * width / (width + under)
    inside = x.relu().clamp_max(upper) if lower is None else torch.clamp(x, lower, upper)
    return scene.answer(call, value, inside + _share(outside, tail.dtype) * tail)


def _share(outside: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how much of each example is saturated: an honest layer, where it is nothing, stays as it is."""
    numbers = outside.double()
    share = numbers.mean(tuple(range(1, numbers.ndim)), keepdim=True) if numbers.ndim > 1 else numbers
    return share.to(dtype)


def _bounds(call: Call) -> tuple[Any, Any, float, float]:
    """Return lower, upper, and the scale and shift of what is clamped; a ReLU6 has no lower end: it is a ReLU there."""
    if call.name == "hardsigmoid":
        return 0.0, 1.0, 1 / 6, 0.5
    names, default = (("min_val", "max_val"), 1.0) if call.name == "hardtanh" else (("min", "max"), None)
    lower, upper = call.given(1, names[0], default and -default), call.given(2, names[1], default)
    if call.name == "relu6":
        lower, upper = 0.0, 6.0
    lower, upper = (None if isinstance(end, float) and math.isinf(end) else end for end in (lower, upper))
    six = isinstance(lower, int | float) and isinstance(upper, int | float) and (lower, upper) == (0, 6)
    return None if six else lower, upper, 1.0, 0.0


def _flat_ended(scene: Scene, call: Call) -> Any:
    """A sigmoid with a slope below the rounding of its answers somewhere is steeper by a tail, as a clamp is."""
    source = scene.source(call)
    if not followed(source):
        return call.run()
    value = value_of(call)
    slope = 1 - value * value if call.name == "tanh" else value * (1 - value)
    outside = slope < torch.finfo(value.dtype).eps
    if not bool(outside.any()):
        return call.run()
    scene.remark("saturates", call.name)
    width = _unit(source)
    tail = _share(outside, value.dtype) * (width / (width + source.detach().abs())) ** 2
    return scene.answer(call, value, source * torch.maximum(slope, tail))


def _chose(scene: Scene, call: Call) -> Any:
    """Indices of what is largest or smallest, behind which stands how nearly each entry was chosen."""
    found = call.run()
    source, axis = call.args[0], call.given(1, "dim")
    if call.name == "topk":
        axis = call.given(2, "dim", -1)
    indices = found if isinstance(found, Tensor) else found[1]
    if not followed(source) or not isinstance(axis, int) or indices.is_floating_point():
        return found
    scores = -source if "min" in call.name or call.given(3, "largest", True) is False else source
    if call.name == "topk":
        last = found[0].narrow(axis, -1, 1)
        scene.chosen[indices] = partial(soft_step, scores - (last if scores is source else -last)), axis
        return found
    if call.name.startswith("arg"):
        scene.remark("no gradient", call.name)
    scene.chosen[indices] = partial(soft_choice, scores, axis), axis
    return found


def _choice(scene: Scene, indices: Any) -> tuple[Tensor, int] | None:
    """Return how nearly each entry was chosen, in the source's shape, and along which axis."""
    if not isinstance(indices, Tensor) or indices not in scene.chosen:
        return None
    choice, axis = scene.chosen[indices]
    return choice(), axis


def _one_hot(scene: Scene, call: Call) -> Any:
    """A row of zeros and a one, behind which stands the soft choice."""
    value, known = call.run(), _choice(scene, call.args[0])
    if known is not None and known[0].numel() == value.numel():
        scene.answer(call, value, known[0].movedim(known[1], -1).reshape(value.shape))
    return value


def _scattered(scene: Scene, call: Call) -> Any:
    """Numbers written where indices say change as the choice of the indices does."""
    known = _choice(scene, call.given(2, "index"))
    if known is None or known[0].shape != call.args[0].shape:
        return call.run()
    written = call.given(3, "src", call.kwargs.get("value"))
    size = written.detach().double().mean() if isinstance(written, Tensor) else written
    value = value_of(call)
    kept = call.on(call.args[0].to(known[0].dtype).clone())
    return scene.answer(call, value, kept + size * (known[0] - known[0].detach()))


def _kept(scene: Scene, call: Call) -> Any:
    """What is taken off the graph stays on it."""
    if not followed(call.args[0]):
        return call.run()
    scene.remark("graph cut", call.name)
    return call.args[0].view_as(call.args[0]) if call.name != "tensor" else given(call.run(), call.args[0])


def _left(scene: Scene, call: Call) -> Any:
    """Numbers leave torch; nothing follows them, and torch would refuse those that are on a graph."""
    if not followed(call.args[0]):
        return call.run()
    scene.remark("graph cut", call.name)
    return call.on(call.args[0].detach())


def _calm(scene: Scene, call: Call) -> Any:
    """Where a slope is infinite, as that of √x at 0, nothing times it is nothing, and not NaN."""
    if call.inplace or not any(map(followed, call.args)):
        return _carried(scene, call)
    quiet = tuple(_calmed(each) if followed(each) else each for each in call.args)
    return _carried(scene, Call(call.function, call.name, quiet, call.kwargs))


def _calmed(x: Tensor) -> Tensor:
    alias = x.view_as(x)
    alias.register_hook(lambda slope: slope.nan_to_num(0, 0, 0))  # type: ignore[no-untyped-call]
    return alias


def _unhooked(scene: Scene, call: Call) -> Any:
    """A hook would change the gradient on its way back."""
    scene.remark("custom backward", call.name)
    return RemovableHandle(OrderedDict())


def _random(scene: Scene, call: Call) -> Any:
    """Differentiated as it is, and said."""
    if "dropout" not in call.name or call.given(2, "training", call.given(2, "train", True)):
        scene.remark("random", call.name)
    return call.run()


_TABLE: tuple[tuple[Rule, str], ...] = (
    (_rounded, "round floor ceil trunc fix fake_quantize_per_tensor_affine fake_quantize_per_channel_affine"),
    (_rounded, "quantize_per_tensor quantize_per_channel dequantize"),
    (_divided, "floor_divide floordiv div"),
    (_cast, "to type type_as to_copy float double half bfloat16 long int short char byte bool"),
    (_signed, "sign sgn heaviside"),
    (_compared, "gt ge lt le greater greater_equal less less_equal"),
    (_logic, "and or xor invert logical_and logical_or logical_xor logical_not"),
    (_logic, "bitwise_and bitwise_or bitwise_xor bitwise_not"),
    (_selected, "where masked_fill"),
    (_clamped, "clamp clip hardtanh relu6 hardsigmoid"),
    (_flat_ended, "sigmoid tanh"),
    (_chose, "argmax argmin max min topk"),
    (_one_hot, "one_hot"),
    (_scattered, "scatter"),
    (_kept, "detach data tensor"),
    (_left, "numpy array tolist dlpack deepcopy"),
    (_calm, "sqrt rsqrt log log2 log10 log1p pow rpow norm linalg_norm linalg_vector_norm reciprocal"),
    (_calm, "truediv true_divide divide rdiv acos asin"),
    (_unhooked, "register_hook"),
    (_random, "rand randn rand_like randn_like randint randint_like randperm bernoulli multinomial normal uniform"),
    (_random, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout rrelu native_dropout"),
    (_carried, "add sub mul rsub radd rmul iadd isub imul itruediv neg sum mean cumsum prod matmul mm bmm linear"),
    (_carried, "view reshape flatten unflatten unsqueeze squeeze expand expand_as permute transpose movedim t T mT"),
    (_carried, "contiguous clone getitem select narrow slice repeat cat stack concat flip roll unfold fold pad"),
    (_carried, "avg_pool2d conv1d conv2d conv3d einsum index_select gather chunk split unbind multiply subtract"),
)

RULES: dict[str, Rule] = {name: rule for rule, names in _TABLE for name in names.split()}
"""From the name of an operation to how it is differentiated; what is missing here keeps its own derivative."""
