"""Goals: the boolean truth, kept apart from the loss that is ascended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor

from steepest.basis.errors import DataError
from steepest.basis.tensors import finite_rows


def classes_of(choice: int | Tensor, outputs: Tensor) -> Tensor:
    """Return a class (one for all, or one per example [N]) as int64 [N] on the device of `outputs`."""
    if not isinstance(choice, Tensor):
        return torch.full(outputs.shape[:1], choice, dtype=torch.int64, device=outputs.device)
    given = choice.to(outputs.device, torch.int64)
    # One per example comes back as it was given: what is known of a tensor is known of that object.
    return given if given.ndim else given.expand(outputs.shape[0])


def rows_of(choice: int | Tensor, index: Tensor) -> int | Tensor:
    """Return the choice for the examples that `index` selects, wherever the two tensors live."""
    return choice.to(index.device)[index] if isinstance(choice, Tensor) else choice


@final
@dataclass(frozen=True, slots=True)
class Misclassified:
    """argmax of the outputs is not y.

    >>> Misclassified()(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]))
    tensor([False,  True])
    """

    def __call__(self, outputs: Tensor, y: object) -> Tensor:
        """See `Goal`.

        Raises:
            DataError: y is no tensor of integer classes: no prediction could ever equal it.
        """
        if not isinstance(y, Tensor) or y.is_floating_point() or y.shape != outputs.shape[:1]:
            form = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else repr(y)[:40]
            raise DataError(
                f"misclassification needs one integer class per example, and y is {form}: give such labels, or say "
                "with goal= when an example counts as won (st.worst_case searches the largest value without a goal)."
            )
        return (outputs.argmax(1) != y) & finite_rows(outputs)

    def rows(self, index: Tensor) -> Self:
        """See `Goal.rows`."""
        return self


@final
@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """argmax of the outputs is the target class; `target` is one class or one per example [N]."""

    target: int | Tensor

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See `Goal`."""
        return (outputs.argmax(1) == classes_of(self.target, outputs)) & finite_rows(outputs)

    def rows(self, index: Tensor) -> Self:
        """See `Goal.rows`."""
        return replace(self, target=rows_of(self.target, index))


@final
@dataclass(frozen=True, slots=True)
class Never:
    """No point ever satisfies it: the search goes on to the largest value that it can find."""

    def __call__(self, outputs: Tensor, y: object) -> Tensor:
        """See `Goal`."""
        return torch.zeros(outputs.shape[0], dtype=torch.bool, device=outputs.device)

    def rows(self, index: Tensor) -> Self:
        """See `Goal.rows`."""
        return self
