"""What a model, an objective and a goal promise to the rest of the house."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Protocol, Self

from torch import Tensor

Labels = Any
"""Whatever the objective understands; for classifiers int64 [N]. Indexable by a tensor of rows."""


class Need(Enum):
    """What a search wants to know of a point."""

    VALUE = "value"
    GRADIENT = "gradient"


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
        outputs: [N, K], at least float32.
        value: [N], the objective's ranking value; NaN where the outputs are not finite.
        won: bool [N], the goal's truth.
        finite: bool [N], false where an output or a gradient is NaN or infinite.
        gradient: of the objective's ascent with respect to the point, or None if not needed. A row that is not
            finite is zero here, so that a NaN never moves a point.
        size: [N], max |gradientᵢ|, or None.
    """

    point: Tensor
    outputs: Tensor
    value: Tensor
    won: Tensor
    finite: Tensor
    gradient: Tensor | None = None
    size: Tensor | None = None

    def rows(self, index: Tensor) -> Self:
        """Return the evaluation of the examples that `index` selects."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            kept[field.name] = None if tensor is None else tensor[index]
        return replace(self, **kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out about a model when it was loaded and first asked; shown in every report.

    Attributes:
        source: the file or object it came from.
        sha256: of the file, or of the module's state.
        kind: "onnx", "pt2", "factory" or "module".
        input_shape: of one example, as the model wants it; None if unknown.
        classes: K.
        outputs: "logits" or "probabilities" (then the handle works on their logarithm).
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
    deterministic: bool | None = None
    batch_independent: bool | None = None
    training: bool | None = None
    agreement: float | None = None
    notes: tuple[str, ...] = ()
