"""What some attacks need inputs to be."""

from __future__ import annotations

from torch import Tensor

from steepest.basis.errors import UsageError


def require_images(x: Tensor, what: str, remedy: str) -> None:
    """Refuse inputs that are no images [N, C, H, W].

    Raises:
        UsageError: names what wanted images, the shape received, and the remedy.
    """
    if x.ndim != 4:
        raise UsageError(f"{what} needs images [N, C, H, W], and x has shape {tuple(x.shape)}: {remedy}.")
