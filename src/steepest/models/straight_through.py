"""Gradients past what has none: a layer or a defence answers as it is, and is differentiated as something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from steepest.basis.errors import ModelError, UsageError, unknown
from steepest.models.model import Model, Network

Function = Callable[[Tensor], Tensor]

Substitute = Function | None
"""A differentiable stand-in; None for the identity."""


def straight_through(model: Model | nn.Module, layers: Mapping[str, Substitute]) -> Model:
    """Return the model whose named layers answer as they are, and are differentiated as their substitutes.

    The backward pass differentiable approximation of Athalye et al. 2018: forward the layer h, backward the
    substitute g, or the identity. Outputs are the model's own, bit by bit. Layers are watched by hooks only while
    the model is asked for a gradient; the module is not changed.

    Args:
        model: a handle of a module, or a module (box [0, 1]).
        layers: from names in `module.named_modules()` to substitutes; None: the identity, where shapes agree.

    Raises:
        UsageError: the network is no module, no layer is named, or a name is unknown (near matches are offered).
        ModelError: when asked: a substitute's shape is not the layer's.

    Source: Athalye, Carlini & Wagner 2018, section 4.1.

    >>> class Rounded(torch.nn.Module):
    ...     def forward(self, x):
    ...         return (x * 4).round() / 4
    >>> net = torch.nn.Sequential(Rounded(), torch.nn.Linear(2, 2))
    >>> from steepest.attacks.api import fgsm
    >>> from steepest.budgets.linf import Linf
    >>> x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    >>> bool((fgsm(straight_through(net, {"0": None}), x, y, Linf(0.1)) != x).all())
    True
    """
    handle = model if isinstance(model, Model) else Model(model)
    if not isinstance(handle.network, nn.Module):
        raise UsageError(
            f"straight_through looks layers up by name, and {handle.facts.source} is a function: give an nn.Module, or "
            "st.defended(model, preprocess, backward='identity') for a step in front of it."
        )
    known = [name for name, _ in handle.network.named_modules() if name]
    for name in layers:
        if name not in known:
            raise unknown("layer", name, known)
    if not layers:
        raise UsageError(f"straight_through: no layer was named; known: {', '.join(known)}.")
    named = f"{handle.facts.source}, straight through {', '.join(layers)}"
    facts = replace(handle.facts, answers="gradient", source=named, sha256="")
    return Model(_Watched(handle.network, layers), handle.box, facts=facts, oracles=handle.oracles)


def defended(
    model: Model | Network,
    preprocess: Function,
    backward: str | Callable[[Tensor], Tensor] | None = None,
) -> Model:
    """Return the model with a defence in front of it: x → model(preprocess(x)).

    Args:
        model: what is defended, with its box.
        preprocess: from inputs [N, *features] to inputs, rows independent; it may be random (see `st.expected`).
        backward: how the defence is differentiated: None: as it is; "identity": straight through, for defences that
            keep the shape and stay near their input; or a differentiable function in its place.

    Raises:
        UsageError: `preprocess` is no function, or `backward` is none of these.
        ModelError: when asked: a substitute's shape is not the defence's.

    Source: Athalye, Carlini & Wagner 2018, sections 4.1 and 5.

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1))
    >>> guarded = defended(f, lambda x: (x * 8).round() / 8, backward="identity")
    >>> guarded.logits(torch.tensor([[0.3, 0.3]]))
    tensor([[0.5000, 0.5000]])
    """
    handle = model if isinstance(model, Model) else Model(model)
    if not callable(preprocess):
        raise UsageError(f"defended: preprocess={preprocess!r} is no function from inputs to inputs.")
    if backward is not None and not callable(backward) and backward != "identity":
        raise UsageError(f"defended: backward={backward!r} is not allowed; give None, 'identity' or a function.")
    facts = replace(handle.facts, outputs="logits", source=f"{handle.facts.source} behind a defence", sha256="")
    return Model(_Defended(handle, preprocess, backward), handle.box, facts=facts, oracles=handle.oracles)


def through(answer: Tensor, substitute: Tensor, what: str) -> Tensor:
    """Return `answer` exactly, with the derivative of `substitute`.

    Raises:
        ModelError: their shapes differ.
    """
    if answer.shape != substitute.shape:
        raise ModelError(
            f"{what} answers {tuple(answer.shape)} and its substitute {tuple(substitute.shape)}: give a differentiable "
            "function with the shape of the original; the identity serves only where the shape is kept."
        )
    # Their difference is exactly 0, so that not even a rounding changes the answer.
    return answer.detach().to(substitute.dtype) + (substitute - substitute.detach())


@final
class _Watched(nn.Module):
    """A module whose named layers are differentiated as something else while it is asked."""

    def __init__(self, inner: nn.Module, layers: Mapping[str, Substitute]) -> None:
        super().__init__()
        self.inner, self.layers = inner, dict(layers)
        self.substitutes = nn.ModuleList(each for each in layers.values() if isinstance(each, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._asked(x)
        with self._hooked():
            return self._asked(x)

    def _asked(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x)
        return answer

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        parts, handles = dict(self.inner.named_modules()), []
        try:
            for name, substitute in self.layers.items():
                hook = _Hook(name, substitute)
                handles.append(parts[name].register_forward_pre_hook(hook.before))
                handles.append(parts[name].register_forward_hook(hook.after))
            yield
        finally:
            for handle in handles:
                handle.remove()


@final
class _Hook:
    """Hands a layer a copy of its input without a graph, and gives its answer the substitute's derivative."""

    def __init__(self, name: str, substitute: Substitute) -> None:
        self.name, self.substitute = name, substitute
        self.given: list[Tensor] = []

    def before(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Keep the input; the layer may work in place on its copy, or without any graph."""
        if not args or not isinstance(args[0], Tensor):
            raise ModelError(f"the layer {self.name!r} is not called with a tensor first: it has no straight-through.")
        self.given.append(args[0])
        return (args[0].detach().clone(), *args[1:])

    def after(self, layer: nn.Module, args: tuple[Any, ...], answer: Any) -> Tensor:
        """Return the layer's answer with the substitute's derivative."""
        given = self.given.pop()
        if not isinstance(answer, Tensor):
            raise ModelError(f"the layer {self.name!r} does not answer one tensor: it has no straight-through.")
        substitute = given if self.substitute is None else self.substitute(given)
        return through(answer, substitute, f"the layer {self.name!r}")


@final
class _Defended(nn.Module):
    """A defence, then the model; both are seen if they are modules, so they are kept as they were."""

    hands_on: ClassVar[bool] = True

    def __init__(self, model: Model, preprocess: Function, backward: str | Function | None) -> None:
        super().__init__()
        self.model, self.preprocess, self.substitute = model, preprocess, backward
        self.network = model.network

    def forward(self, x: Tensor) -> Tensor:
        return self.model.passed(self._cleaned(x))

    def _cleaned(self, x: Tensor) -> Tensor:
        if self.substitute is None or not torch.is_grad_enabled():
            return self.preprocess(x)
        with torch.no_grad():
            answer = self.preprocess(x.detach().clone())
        return through(answer, x if isinstance(self.substitute, str) else self.substitute(x), "the defence")
