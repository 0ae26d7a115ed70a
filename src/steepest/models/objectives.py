"""Objectives: what is ascended, and what ranks points. Larger is always worse for the model.

Notation: z the logits [N, K], y the label, m = z_y − max over k ≠ y of z_k the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast, final
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from steepest.basis.catalogue import Catalogue
from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.models.contract import Goal, Objective
from steepest.models.goals import Misclassified, Never, Predicted, classes_of, rows_of

Function = Callable[[Tensor, Any], Tensor]
"""(outputs [N, K], y) → [N], larger is worse for the model."""

OBJECTIVES: Catalogue[Objective] = Catalogue("objective")


@OBJECTIVES.add("ce", {"ascends": "−log p_y", "ranks_by": "itself", "source": "Goodfellow et al. 2015"})
@final
@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross-entropy −log softmax(z)_y: the classical loss; in float32 it is exactly flat where m ≥ 16.64.

    >>> CrossEntropy().value(torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]))
    tensor([0.1852])
    """

    @property
    def goal(self) -> Goal:
        """Misclassified."""
        return Misclassified()

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return cross_entropy(outputs, checked(y, outputs), reduction="none")

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return self


@OBJECTIVES.add("margin", {"ascends": "−m", "ranks_by": "itself", "source": "Carlini & Wagner 2017"})
@final
@dataclass(frozen=True, slots=True)
class Margin:
    """The negative margin max over k ≠ y of z_k, minus z_y: positive exactly where misclassified; never flat.

    >>> Margin().value(torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]))
    tensor([-2.])
    """

    @property
    def goal(self) -> Goal:
        """Misclassified."""
        return Misclassified()

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        own = checked(y, outputs)[:, None]
        # −∞ and not 0 hides the own class: with all other logits negative a 0 would win.
        rival = outputs.scatter(1, own, -torch.inf).max(1).values
        return rival - outputs.gather(1, own).squeeze(1)

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return self


@OBJECTIVES.add(
    "scaled-ce",
    {"ascends": "s·CE(z/s), s = z₍₁₎ − z₍₂₎ held fixed", "ranks_by": "margin", "source": "Yu & Xu 2023"},
)
@final
@dataclass(frozen=True, slots=True)
class ScaledCrossEntropy:
    """Cross-entropy of logits over their own top-two gap: it neither saturates nor depends on the logits' scale.

    The gap s is held fixed in the derivative and floored by the smallest normal number. The ascent is s·CE(z/s):
    the factor changes no direction and keeps the gradient of the size of the logits' own. Points are ranked by
    the margin, because CE(z/s) is constant for K = 2 and can fall while the margin shrinks.

    Source: the loss of MIFPE, Yu & Xu 2023 (CVPR); ranking by the margin is ours.

    >>> g = lambda scale: ScaledCrossEntropy().ascent(scale * torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
    >>> torch.allclose(g(1e4) / 1e4, g(1e-3) / 1e-3)
    True
    """

    @property
    def goal(self) -> Goal:
        """Misclassified."""
        return Misclassified()

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        labels = checked(y, outputs)
        top = outputs.detach().topk(2, dim=1).values
        gap = (top[:, 0] - top[:, 1]).clamp_min(torch.finfo(outputs.dtype).tiny)
        scaled = (outputs - top[:, :1]) / gap[:, None]
        return gap * cross_entropy(scaled, labels, reduction="none")

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return Margin().value(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return self


@OBJECTIVES.add("dlr", {"ascends": "−m / (z₍₁₎ − z₍₃₎)", "ranks_by": "itself", "source": "Croce & Hein 2020"})
@final
@dataclass(frozen=True, slots=True)
class DLR:
    """Difference of logits ratio −m/(z₍₁₎ − z₍₃₎): invariant under scaling and shifting of the logits; needs K ≥ 3.

    Raises:
        UsageError: K < 3; the margin serves there.

    >>> DLR().value(torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]))
    tensor([-0.6667])
    """

    @property
    def goal(self) -> Goal:
        """Misclassified."""
        return Misclassified()

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        top = _largest(outputs, 3, "dlr")
        return Margin().ascent(outputs, y) / _floored(top[:, 0] - top[:, 2])

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return self


@final
@dataclass(frozen=True, slots=True)
class DLROrMargin:
    """The dlr where there are classes enough for it (3; 4 as a `Targeted` base), and the margin where there are not.

    For recipes that promise the dlr to every model; `fallback_notes` says what was done.

    >>> DLROrMargin().value(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
    tensor([-2.])
    """

    @property
    def goal(self) -> Goal:
        """Misclassified."""
        return Misclassified()

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return (DLR() if outputs.shape[1] >= 3 else Margin()).ascent(outputs, y)

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return self


def fallback_notes(objective: object, classes: int, *, targeted: bool) -> tuple[str, ...]:
    """Return what a reader must know of an objective that was asked about so many classes; mostly nothing."""
    least = 4 if targeted else 3
    if not isinstance(objective, DLROrMargin) or not 0 < classes < least:
        return ()
    name = "targeted dlr" if targeted else "dlr"
    return (f"the margin took the place of the {name}, which needs {least} classes; the model has {classes}",)


@OBJECTIVES.add(
    "targeted",
    {
        "ascends": "−base at the target; for dlr −(z_y − z_t)/(z₍₁₎ − ½(z₍₃₎ + z₍₄₎))",
        "ranks_by": "base",
        "source": "Carlini & Wagner 2017; Croce & Hein 2020",
    },
)
@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Targeted:
    """The objective of becoming class t: minus the base objective with t in the place of y.

    For "dlr" it is the published targeted form −(z_y − z_t)/(z₍₁₎ − (z₍₃₎ + z₍₄₎)/2), which needs K ≥ 4.

    Args:
        base: "scaled-ce", "ce", "margin" or "dlr", or such an object; `DLROrMargin()` serves every K.
        target: one class for all, or one per example, int64 [N].

    Raises:
        UsageError: no target; a base that cannot be targeted; with "dlr", K < 4.

    Source: Carlini & Wagner 2017; Croce & Hein 2020, equation 7.

    >>> Targeted("margin", 1).value(torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]))
    tensor([-2.])
    """

    base: str | Objective | Function = "scaled-ce"
    target: int | Tensor | None = None

    def __post_init__(self) -> None:
        base = objective_of(self.base)
        if not isinstance(base, CrossEntropy | Margin | ScaledCrossEntropy | DLR | DLROrMargin):
            raise UsageError(f"Targeted: {self.base!r} cannot be targeted; give one of ce, margin, scaled-ce, dlr.")
        if self.target is None:
            raise UsageError("targeted needs a class: --target 3, or st.Targeted('scaled-ce', 3), or one per example.")
        object.__setattr__(self, "base", base)

    def __repr__(self) -> str:
        target = f"<{self.target.numel()} classes>" if isinstance(self.target, Tensor) else self.target
        return f"Targeted({self.base!r}, {target})"

    @property
    def goal(self) -> Goal:
        """Predicted as the target."""
        return Predicted(self._target)

    @property
    def _target(self) -> int | Tensor:
        assert self.target is not None
        return self.target

    def ascent(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self._towards(outputs, y, objective_of(self.base).ascent)

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Objective`."""
        return self._towards(outputs, y, objective_of(self.base).value)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return replace(self, target=rows_of(self._target, index))

    def _towards(self, outputs: Tensor, y: Tensor, base: Function) -> Tensor:
        target = checked(classes_of(self._target, outputs), outputs)
        if isinstance(self.base, DLROrMargin) and outputs.shape[1] < 4:
            return -Margin().ascent(outputs, target)
        if not isinstance(self.base, DLR | DLROrMargin):
            return -base(outputs, target)
        top = _largest(outputs, 4, "targeted dlr")
        own = outputs.gather(1, checked(y, outputs)[:, None]).squeeze(1)
        wanted = outputs.gather(1, target[:, None]).squeeze(1)
        return (wanted - own) / _floored(top[:, 0] - (top[:, 2] + top[:, 3]) / 2)


@final
@dataclass(frozen=True, slots=True)
class Custom:
    """A user's function (outputs [N, K], y) → [N], larger is worse for the model.

    Raises:
        UsageError: when asked: the function does not return one number per example.
    """

    function: Function
    goal: Goal = field(default_factory=Misclassified)

    def ascent(self, outputs: Tensor, y: Any) -> Tensor:
        """See `Objective`."""
        found = self.function(outputs, y)
        if not isinstance(found, Tensor) or found.shape != outputs.shape[:1]:
            form = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(
                f"the objective function returned {form} for {outputs.shape[0]} examples; it must return one number "
                "per example, shape [N] (leave out .mean(); for torch losses give reduction='none')."
            )
        return found

    def value(self, outputs: Tensor, y: Any) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Custom:
        """See `Objective.rows`."""
        return replace(self, goal=self.goal.rows(index))


def output_itself() -> Objective:
    """Return the objective of systems that answer one number: the number, with no goal but the largest."""
    return Custom(lambda outputs, _: outputs[:, 0], Never())


def objective_of(choice: str | Objective | Function) -> Objective:
    """Return an objective from its name, from itself, or from a function (outputs, y) → [N].

    Raises:
        UsageError: an unknown name (near matches are offered).
    """
    if isinstance(choice, str):
        return OBJECTIVES.build(choice)
    if not (hasattr(choice, "ascent") or callable(choice)):
        raise UsageError(
            f"objective={choice!r}: give a name ({', '.join(OBJECTIVES.names())}), an object or a function."
        )
    return cast(Objective, choice) if hasattr(choice, "ascent") else Custom(choice)


def checked(y: Tensor, outputs: Tensor) -> Tensor:
    """Return labels that fit the outputs.

    Raises:
        ModelError: the model has one output only.
        DataError: not int64 [N], or outside 0 … K − 1.
    """
    if outputs.shape[1] < 2:
        raise ModelError(
            f"the model answers [{outputs.shape[0]}, {outputs.shape[1]}]; a classifier needs K ≥ 2 outputs. Wrap it: "
            "a single logit z becomes torch.cat([-z, z], 1) / 2."
        )
    if not isinstance(y, Tensor) or y.shape != outputs.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        form = f"shape {tuple(y.shape)} and type {y.dtype}" if isinstance(y, Tensor) else f"type {type(y).__name__}"
        raise DataError(
            f"labels of {form} do not fit {outputs.shape[0]} examples: give one integer class per example, shape [N]."
        )
    # Looked at once: on a GPU every look waits for all that is under way.
    name = (id(y), -1 if y.is_inference() else y._version, outputs.shape[1])
    if _FITTING.get(name) is y:
        return y.long()
    least, most = (int(label) for label in y.aminmax()) if y.numel() else (0, 0)
    if least < 0 or most >= outputs.shape[1]:
        raise DataError(
            f"labels run from {least} to {most}, but the model has {outputs.shape[1]} classes, "
            f"0 to {outputs.shape[1] - 1}. Check that data and model belong together."
        )
    if not y.is_inference():  # such tensors count no versions
        _FITTING[name] = y
    return y.long()


_FITTING: WeakValueDictionary[tuple[int, int, int], Tensor] = WeakValueDictionary()
"""Labels that were found to fit, by identity, version and number of classes, as long as they live."""


def _largest(outputs: Tensor, count: int, name: str) -> Tensor:
    if outputs.shape[1] < count:
        raise UsageError(
            f"objective {name!r} needs at least {count} classes, the model has {outputs.shape[1]}: use 'margin' or "
            "'scaled-ce', which work for every number of classes."
        )
    return outputs.topk(count, dim=1).values


def _floored(size: Tensor) -> Tensor:
    return size.clamp_min(torch.finfo(size.dtype).tiny)
