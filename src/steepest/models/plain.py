"""Models that are plain functions: of arrays, without gradients, answering scores or labels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from steepest.basis.box import Bound, Box
from steepest.basis.errors import ModelError, UsageError
from steepest.models.contract import Facts
from steepest.models.model import Model

Function = Callable[[Any], Any]
"""x [N, *features] → scores [N, K] or labels [N]; of a NumPy array, or of a tensor."""


@final
class Plain:
    """A function of arrays behind the face of a network: x as an array of its own, answers as a tensor beside x."""

    def __init__(self, function: Function, read: Callable[[Any, int], np.ndarray], *, arrays: bool) -> None:
        self.function, self.read, self.arrays = function, read, arrays
        self.__module__, self.__qualname__ = _place(function)

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the function says of x [N, *features], as [N, K]."""
        given = x.detach().clone()
        told = self.function(_array(given) if self.arrays else given)
        told = told.detach().cpu().float().numpy() if isinstance(told, Tensor) and told.is_floating_point() else told
        return torch.from_numpy(self.read(told, x.shape[0])).to(x.device)


def scores(
    function: Function,
    box: Box | tuple[Bound, Bound] | None = (0.0, 1.0),
    *,
    outputs: str = "logits",
    arrays: bool = True,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Return the model of a plain function that answers scores [N, K], larger for the likelier class.

    It serves attacks that need scores or labels (`square`, `nes`, `spsa`, `simba`, `noise`); `st.estimated(model)`
    lends it a gradient. The function gets an array of its own, in the precision of x, which it may change.

    Args:
        function: x [N, *features] → [N, K], e.g. a classifier's `predict_proba`.
        box: as for `Model`.
        outputs: "logits" or "probabilities", whose logarithm the handle works on; an audit recognises them itself.
        arrays: False gives the function tensors instead of NumPy arrays.
        input_shape: of one example, as the function wants it; `st.audit` reshapes data of another shape.

    Raises:
        UsageError: no function, an unknown kind of outputs.
        ModelError: when asked: the answer is no [N, K] of numbers with K ≥ 2.

    >>> import steepest as st
    >>> f = st.scores(lambda x: np.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> st.attack("square(queries=20)", f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), st.Linf(0.1)).won
    tensor([True])
    """
    if outputs not in ("logits", "probabilities"):
        raise UsageError(f"outputs={outputs!r} is not allowed; give 'logits' (any scores) or 'probabilities'.")
    facts = _facts(function, "scores", outputs=outputs, input_shape=input_shape)
    return Model(Plain(function, _read_scores, arrays=arrays), box, facts=facts)


def labels(
    function: Function,
    classes: int | Sequence[Any],
    box: Box | tuple[Bound, Bound] | None = (0.0, 1.0),
    *,
    arrays: bool = True,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Return the model of a plain function that answers labels [N] alone; its scores are 1 for the label, else 0.

    Args:
        function: x [N, *features] → [N], e.g. a classifier's `predict`.
        classes: K, when labels are 0 … K − 1; or the K labels in the order of y, e.g. a classifier's `classes_`.
        Others: as `scores`.

    Raises:
        UsageError: no function, fewer than two classes.
        ModelError: when asked: the answer is no [N] of known labels.

    >>> import steepest as st
    >>> f = st.labels(lambda x: (x.sum(1) < 0.5).astype(int), classes=2, box=(0, 1))
    >>> st.attack("noise(points=20)", f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), st.Linf(0.1)).won
    tensor([True])
    """
    names = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
    if names.ndim != 1 or len(names) < 2 or len(np.unique(names)) < len(names):
        raise UsageError(f"classes={classes!r} is not allowed; give their number, at least 2, or the different labels.")

    def read(told: Any, count: int) -> np.ndarray:
        return _read_labels(told, count, names)

    facts = _facts(function, "labels", classes=len(names), input_shape=input_shape)
    return Model(Plain(function, read, arrays=arrays), box, facts=facts)


def _facts(function: Function, answers: str, **known: Any) -> Facts:
    if not callable(function) or isinstance(function, Model):
        raise UsageError(f"{function!r} is no plain function: give one of arrays, e.g. classifier.predict_proba.")
    return Facts(source=_place(function)[1], kind="function", answers=answers, **known)


def _place(function: Function) -> tuple[str, str]:
    """Return module and name of a function; of a bound method that of its object's class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    owner = getattr(function, "__self__", None)
    name = named.__qualname__ if owner is None else f"{type(owner).__qualname__}.{named.__name__}"
    return str(named.__module__), str(name)


def _array(x: Tensor) -> np.ndarray:
    known = x.float() if x.dtype == torch.bfloat16 else x
    array: np.ndarray = known.cpu().numpy()
    return array


def _read_scores(told: Any, count: int) -> np.ndarray:
    found = np.asarray(told)
    if found.dtype.kind not in "fiub" or found.ndim != 2 or found.shape[0] != count or found.shape[1] < 2:
        raise ModelError(
            f"the function answered {_form(found)} to {count} examples; allowed are scores, an array of numbers "
            f"[{count}, K] with K ≥ 2. A single score s becomes np.stack([-s, s], 1) / 2; a function that answers "
            "labels belongs into st.labels(function, classes=K)."
        )
    wide = found if found.dtype in (np.float32, np.float64) else found.astype(np.float32 if _short(found) else float)
    return np.array(wide, order="C")


def _short(found: np.ndarray) -> bool:
    return found.dtype == np.float16


def _read_labels(told: Any, count: int, names: np.ndarray) -> np.ndarray:
    found = np.asarray(told)
    found = found.reshape(-1) if found.shape == (count, 1) else found
    if found.shape != (count,):
        raise ModelError(
            f"the function answered {_form(found)} to {count} examples; allowed are labels, an array [{count}]. "
            "A function that answers scores [N, K] belongs into st.scores(function)."
        )
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, found, sorter=order).clip(0, len(names) - 1)
    index = order[place]
    strange = found[names[index] != found]
    if strange.size:
        raise ModelError(
            f"the function answered the label {strange[0]!r}, which is none of the {len(names)} classes "
            f"({', '.join(map(repr, names[:10].tolist()))}{', …' if len(names) > 10 else ''}). Give their number, "
            "classes=K, for labels 0 … K − 1, or all labels in the order of y, e.g. classes=classifier.classes_."
        )
    shown: np.ndarray = np.eye(len(names), dtype=np.float32)[index]
    return shown


def _form(found: np.ndarray) -> str:
    return f"an array of shape {found.shape} and type {found.dtype}"
