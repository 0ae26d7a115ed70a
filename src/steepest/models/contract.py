"""What a model, an objective and a goal promise to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Protocol, Self

from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import Sight
from steepest.budgets.region import Region

Labels = Any
"""Whatever the objective understands; for classifiers int64 [N]. Indexable by a tensor of rows."""


Count = int | Tensor
"""How often something happened for each example: one number for all of them, or int64 [N]."""


def added(count: Count, questions: int) -> Count:
    """Return the sum over `questions` questions about each example, which lie next to each other.

    >>> added(1, 3), added(Tensor([1, 2, 0, 1]).long(), 2)
    (3, tensor([3, 1]))
    """
    return count.reshape(-1, questions).sum(1) if isinstance(count, Tensor) else count * questions


class Need(Enum):
    """What a search wants to know of a point."""

    VALUE = "value"
    GRADIENT = "gradient"
    JACOBIAN = "jacobian"


class Goal(Protocol):
    """The boolean truth that a search tries to reach, e.g. "misclassified"."""

    def __call__(self, outputs: Tensor, y: Labels) -> Tensor:
        """Return bool [N]; non-finite outputs never reach a goal."""

    def rows(self, index: Tensor) -> Goal:
        """Return the goal of the examples that `index` selects."""


class Objective(Protocol):
    """A differentiable number per example; larger is worse for the model."""

    @property
    def goal(self) -> Goal:
        """The goal that this objective serves unless another is given."""

    def ascent(self, outputs: Tensor, y: Labels) -> Tensor:
        """Return [N], the quantity that is differentiated."""

    def value(self, outputs: Tensor, y: Labels) -> Tensor:
        """Return [N], the quantity that ranks points and of which the laws speak."""

    def rows(self, index: Tensor) -> Objective:
        """Return the objective of the examples that `index` selects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the model answered at a point; every tensor has leading axis N, all detached.

    Attributes:
        point: the input that was asked.
        outputs: [N, K], at least float32, the scores or logits.
        value: [N], the objective's ranking value; NaN where the outputs are not finite.
        won: bool [N], the goal's truth.
        finite: bool [N], false where an output or a gradient is NaN or infinite.
        gradient: of the objective's ascent with respect to the point, or None if not needed. A row that is not
            finite is zero here, so that a NaN never moves a point.
        jacobian: [N, R, *features], the gradients of the R outputs that were named, treated alike, or None.
        size: [N], max |gradientᵢ| (of all rows of the Jacobian), or None.
        forwards, backwards: what this answer cost, for each example.
        unconfirmed: successes that a model asked in this one's place claimed and this one did not repeat.
        sight: of `won`, taken before any backward; None, or of another tensor, where `won` came about otherwise.
    """

    point: Tensor
    outputs: Tensor
    value: Tensor
    won: Tensor
    finite: Tensor
    gradient: Tensor | None = None
    jacobian: Tensor | None = None
    size: Tensor | None = None
    forwards: Count = 1
    backwards: Count = 0
    unconfirmed: Count = 0
    sight: Sight | None = None

    def none_won(self) -> bool:
        """Return whether it is known that no example won, without waiting for the slopes: a GPU is still at them."""
        return self.sight is not None and self.sight.mask is self.won and not self.sight.any()

    def rows(self, index: Tensor) -> Self:
        """Return the evaluation of the examples that `index` selects."""
        return self.each(lambda tensor: tensor[index])

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the evaluation with every tensor changed alike."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            found = getattr(self, field.name)
            kept[field.name] = change(found) if isinstance(found, Tensor) else found
        return replace(self, **kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked about a batch of points; one forward, and the backwards that `need` takes.

    Attributes:
        point: [N, *features].
        ascent: the objective that is differentiated, where it is not `objective`, which ranks.
        classes: int64 [N, R], the outputs whose gradients a Jacobian consists of.
        view: a differentiable change of the point on its way into the network, rows independent; None for none.
        stream, step: random numbers of the examples, for oracles that draw.
        region: where the examples' points may be, for oracles that ask elsewhere; None if nobody knows.
    """

    point: Tensor
    y: Labels
    objective: Objective
    goal: Goal
    need: Need = Need.VALUE
    ascent: Objective | None = None
    classes: Tensor | None = None
    view: Callable[[Tensor], Tensor] | None = None
    stream: Stream | None = None
    step: int = 0
    region: Region | None = None


Answer = Callable[[Question], Evaluation]


class Oracle(Protocol):
    """A way of answering questions by asking others: averages over randomness, estimates of a gradient, views.

    It wraps the evaluation, so that every search runs on every kind of model.
    """

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """Return the answer to `question`, having asked what it takes; `forwards` and `backwards` count all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out about a model when it was loaded and first asked; shown in every report.

    Attributes:
        source: the file or object it came from.
        sha256: of the file, or of the module's state.
        kind: "onnx", "pt2", "factory", "module" or "function" (of arrays).
        input_shape: of one example, as the model wants it; None if unknown.
        classes: K.
        outputs: "logits" or "probabilities" (then the handle works on their logarithm).
        answers: "gradient" (autograd reaches the input), "scores" or "labels" alone.
        deterministic: the same question twice gave the same answer.
        batch_independent: an answer does not depend on batchmates.
        training: some submodule was in training mode.
        agreement: the largest difference to onnxruntime, or None.
        notes: one sentence for each thing that was adapted or that a reader should know.
    """

    source: str = "object"
    sha256: str = ""
    kind: str = "module"
    input_shape: tuple[int, ...] | None = None
    classes: int | None = None
    outputs: str = "logits"
    answers: str = "gradient"
    deterministic: bool | None = None
    batch_independent: bool | None = None
    training: bool | None = None
    agreement: float | None = None
    notes: tuple[str, ...] = ()
