"""Work in batches that shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Batches:
    """Hands rows to a function, so many at a time and in their order; half as many from where memory runs out.

    Attributes:
        size: the present size; it falls and never rises.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, rows: Tensor, do: Callable[[Tensor], None]) -> None:
        """Call `do` with the rows of one batch after another; it must change nothing before it has all its answers.

        Raises:
            RuntimeError, MemoryError: memory is short for a single example, or anything else that `do` raises.
        """
        while rows.numel():
            part = rows[: self.size]
            try:
                do(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or part.numel() == 1:
                    raise
                self.size = part.numel() // 2
                continue
            rows = rows[part.numel() :]

    def halved_from(self, size: int) -> tuple[str, ...]:
        """Return a note for the ledger if the size fell since it was `size`."""
        if self.size == size:
            return ()
        return (f"memory ran out with batches of {size}; from there on they had {self.size}",)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory is short, on the processor or on a GPU.

    >>> out_of_memory(RuntimeError("CUDA out of memory.")), out_of_memory(RuntimeError("shapes do not fit"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return "out of memory" in said or "can't allocate memory" in said or "not enough memory" in said
