"""Rotations and translations: a grid of transformed images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from steepest.attacks.checks import between, refused, whole
from steepest.attacks.contract import VALUE, Ask, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.basis.images import require_images
from steepest.budgets.region import Region
from steepest.budgets.whole import Whole
from steepest.models.contract import Evaluation

Transform = tuple[float, float, float]
"""Degrees, pixels down, pixels to the right."""


@final
@dataclass(frozen=True, slots=True)
class Transforms:
    """Visit x itself, then a grid of its rotations and translations, the largest first; all from x, none of a mix.

    A transform that leaves the region does not count: x is asked in its place.

    Args:
        degrees: the largest rotation to either side.
        pixels: the largest translation along either axis.
        angles, shifts: how many values of each the grid has.
    """

    degrees: float
    pixels: float
    angles: int
    shifts: int
    grid: tuple[Transform, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, most in (("degrees", 180), ("pixels", math.inf)):
            between("spatial", name, getattr(self, name), 0, most)
        for name in ("angles", "shifts"):
            whole("spatial", name, getattr(self, name), 1)
            if not getattr(self, name) % 2:
                raise refused("spatial", name, getattr(self, name), "give an odd number, so that 0 is among")
        turns, moves = spaced(self.degrees, self.angles), spaced(self.pixels, self.shifts)
        others = [each for each in product(turns, moves, moves) if any(each)]
        object.__setattr__(self, "grid", tuple(sorted(others, key=self._reach, reverse=True)))

    def _reach(self, transform: Transform) -> float:
        turn, down, right = transform
        return abs(turn) / (self.degrees or 1) + (abs(down) + abs(right)) / (2 * self.pixels or 1)

    @property
    def steps(self) -> int:
        """See `Search.steps`: x and the grid, whose last point the loop asks about."""
        return len(self.grid)

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: nothing to remember."""
        require_images(point, "spatial", "rotations exist for images")
        return {}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return VALUE

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        region = problem.region
        moved = transformed(region.x, self.grid[number], _black(region))
        point = Region(Whole(), region.box, region.x).project(moved)
        return torch.where(region.contains(point).reshape(-1, 1, 1, 1), point, region.x), state


def spaced(largest: float, count: int) -> list[float]:
    """Return `count` numbers from −largest to largest at equal distances; an odd count holds 0 exactly, each once.

    >>> spaced(30, 5), spaced(0, 5)
    ([-30.0, -15.0, 0.0, 15.0, 30.0], [0.0])
    """
    half = count // 2
    return sorted({largest * step / half for step in range(-half, half + 1)}) if half and largest else [0.0]


def transformed(image: Tensor, transform: Transform, black: Tensor) -> Tensor:
    """Return images [N, C, H, W] rotated about their centres (anticlockwise), then translated; `black` around.

    Bilinear; a whole number of pixels without rotation is a shift without a rounding, and 90° turns a square.

    >>> transformed(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), (90.0, 0.0, 0.0), torch.tensor(0.0))
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    turn, down, right = transform
    height, width = image.shape[2:]
    cosine, sine = _exact(math.cos(math.radians(turn))), _exact(math.sin(math.radians(turn)))
    # Where each pixel of the result comes from: translated back, then turned back, in units of half an image.
    across, along = 2 * right / width, 2 * down / height
    back = torch.tensor(
        [
            [cosine, -sine * height / width, -cosine * across + sine * height / width * along],
            [sine * width / height, cosine, -sine * width / height * across - cosine * along],
        ],
        dtype=torch.float64,
        device=image.device,
    )
    grid = affine_grid(back[None], [1, 1, height, width], align_corners=False)
    wide = image.double() - black
    moved = grid_sample(wide, grid.expand(len(image), -1, -1, -1), padding_mode="zeros", align_corners=False)
    return (moved + black).to(image.dtype)


def _exact(ratio: float) -> float:
    """Return 0 and ±1 where a cosine misses them by its rounding."""
    return round(ratio) if abs(ratio - round(ratio)) < 1e-12 else ratio


def _black(region: Region) -> Tensor:
    """Return what is around an image: the lower end of the box, or 0 where it has none."""
    lower, _ = region.box.bounds(region.x)
    return torch.where(lower.isinf(), 0.0, lower)


@recipe(
    "spatial",
    needs="labels",
    cost="angles × shifts² × F",
    source="Engstrom et al. 2019",
    budgets=("any", "none"),
)
def spatial(degrees: float = 30.0, pixels: float = 3.0, angles: int = 31, shifts: int = 5) -> Recipe:
    """The worst of a grid of rotations and translations of an image, exactly; images only.

    Rotations and translations leave every L_p ball: give no budget (`None`), or only those inside it count.
    """
    return Recipe(search=Transforms(degrees, pixels, angles, shifts))
