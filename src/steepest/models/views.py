"""Gradients at changed copies of an image: scales, and random sizes and places (transfer attacks)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.images import require_images
from steepest.basis.streams import Stream
from steepest.models.averages import costs, with_mean_slopes
from steepest.models.contract import Answer, Evaluation, Need, Question

View = Callable[[Tensor], Tensor]
"""A differentiable change of points on their way into the network, rows independent."""


@final
@dataclass(frozen=True, slots=True)
class Views:
    """The oracle whose gradient is the mean over `scales` copies x/2^i, each resized and moved with some probability.

    Only gradients are taken at copies; what judges a point is the model's answer at the point itself. Without
    resizing that is the first copy and costs nothing, with it one forward more.

    Args:
        scales: how many copies, i = 0 … scales − 1 (Lin et al. 2020); 1: the point alone.
        diversity: the probability, for each example, copy and question, of being resized to a random size and
            padded with zeros at a random place to its old one (Xie et al. 2019); 0: never.
        resize: the smallest size, as a share of the image's.

    Raises:
        UsageError: scales below 1, a diversity outside [0, 1], a resize outside (0, 1]; with diversity, inputs that
            are no images.
    """

    scales: int = 1
    diversity: float = 0.0
    resize: float = 0.9

    def __post_init__(self) -> None:
        if not isinstance(self.scales, int) or not 1 <= self.scales <= 64:
            raise UsageError(f"scales={self.scales!r} is not allowed; give a whole number from 1 to 64, e.g. 5.")
        if not 0 <= self.diversity <= 1:
            raise UsageError(f"diversity={self.diversity!r} is not allowed; it is a probability, from 0 to 1.")
        if not 0 < self.resize <= 1:
            raise UsageError(f"resize={self.resize!r} is not allowed; it is a share of the image, above 0 up to 1.")

    @property
    def neutral(self) -> bool:
        """Whether nothing is changed at all."""
        return self.scales == 1 and not self.diversity

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        if question.need is Need.VALUE or self.neutral:
            return ask(question)
        parts = [ask(replace(question, view=self._view(question, scale))) for scale in range(self.scales)]
        plain = ask(replace(question, need=Need.VALUE)) if self.diversity else parts[0]
        asked = [*parts, plain] if self.diversity else parts
        return replace(with_mean_slopes(plain, parts), **costs(asked))

    def _view(self, question: Question, scale: int) -> View | None:
        first, factor = question.view, 2.0**-scale
        if not self.diversity:
            return _after(first, lambda point: point * factor) if scale else first
        require_images(question.point, "diversity", "resizing exists for images; give diversity=0 (mi-fgsm)")
        # Without streams (a question that no search asked) every example draws the same.
        stream = question.stream or Stream.of(0, torch.zeros_like(question.point[:, 0, 0, 0], dtype=torch.int64))
        draws = stream.split(scale).uniform(question.step, (4,))
        rows, columns = self._placed(question.point, draws)
        return _after(first, lambda point: rows @ (point * factor) @ columns)

    def _placed(self, image: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return the linear maps of the rows and of the columns of each image, [N, 1, H, H] and [N, 1, W, W]."""
        chosen, size, down, right = draws.unbind(1)
        small = chosen < self.diversity
        rows, columns = (
            resizing(length, *self._drawn(length, size, place, small))
            for length, place in ((image.shape[2], down), (image.shape[3], right))
        )
        return rows[:, None].to(image.dtype), columns.mT[:, None].to(image.dtype)

    def _drawn(self, length: int, size: Tensor, place: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        least = max(1, int(self.resize * length))
        new = torch.where(small, least + (size * (length - least)).floor(), length)
        return new, (place * (length - new + 1)).floor()


def resizing(length: int, size: Tensor, start: Tensor) -> Tensor:
    """Return the matrices [N, length, length] that shrink an axis to `size` [N] and put it at `start` [N].

    Bilinear, pixels as little squares, zeros around; a matrix and not a grid, so that its derivative is the same
    on every device and in every run.

    >>> resizing(4, torch.tensor([2.0]), torch.tensor([1.0]))[0] @ torch.tensor([1.0, 3.0, 5.0, 7.0]).double()
    tensor([0., 2., 6., 0.], dtype=torch.float64)
    """
    pixel = torch.arange(length, dtype=torch.float64, device=size.device)
    place = pixel - start.double()[:, None]
    source = (place + 0.5) * (length / size.double()[:, None]) - 0.5
    weights = (1 - (source[:, :, None] - pixel).abs()).clamp_min(0)
    return weights * ((place >= 0) & (place < size[:, None]))[:, :, None]


def _after(first: View | None, then: View) -> View:
    return then if first is None else lambda point: then(first(point))
