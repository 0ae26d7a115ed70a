"""Uniform points of a ball cut by a coordinate box.

The free ball is sampled exactly. Where that draw leaves the limits, a Markov chain takes over whose steps leave
the uniform law of the *cut* ball unchanged: coordinates are paired at random and each pair redistributes what it
holds (Kac 1956: a random rotation on the sphere; on the simplex, a random split). A ball in d dimensions is the
shadow of a sphere in d + 2 (L2) or of a simplex in d + 1 (L1); the extra coordinates have no limits and let the
radius move too. All pairs move at once, so a sweep costs O(d), and O(log d) sweeps mix a Kac walk.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from steepest.basis.streams import Stream
from steepest.basis.tensors import expand, flat
from steepest.budgets.contract import Limits
from steepest.budgets.splitting import shrunk

_REDRAWS = 8
"""How often a draw outside the limits is drawn again; in many dimensions none of them would do."""

Exchange = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(a, b, u) → new (a, b), each [N, pairs], u uniform: symmetric under reversal, keeps what the pair holds."""

_SWEEPS = 32
"""Enough in two and three dimensions, where most moves are refused, and beyond log d for any image."""


def uniform_in_ball(
    draw: Tensor, limits: Limits, slack: Tensor, exchange: Exchange, stream: Stream, step: int
) -> Tensor:
    """Return `draw` [N, d] where it obeys the limits, else the end of a chain that started from it, clipped.

    Args:
        draw: a uniform point of the free ball.
        limits: (low, high) [N, d] with low ≤ 0 ≤ high.
        slack: maps the clipped start to its extra coordinates [N, e], so that the whole holds ε.
        exchange: the pair move.
    """
    low, high = limits
    clipped = draw.clamp(low, high)
    outside = (clipped != draw).any(1).nonzero().squeeze(1)
    if not outside.numel():
        return draw
    start = torch.cat([clipped[outside], slack[outside]], 1)
    free = torch.full_like(slack[outside], torch.inf)
    low, high = torch.cat([low[outside], -free], 1), torch.cat([high[outside], free], 1)
    walked = _walk(start, low, high, exchange, stream.rows(outside), step)
    return draw.index_copy(0, outside, walked[:, : draw.shape[1]])


def _walk(state: Tensor, low: Tensor, high: Tensor, exchange: Exchange, stream: Stream, step: int) -> Tensor:
    width = state.shape[1]
    for sweep in range(_SWEEPS):
        # The pairing is shared by all rows: it depends on (step, sweep) alone, so batchmates do not matter.
        shuffle = Stream.of(step, torch.full((1,), sweep, device=state.device))
        order = shuffle.uniform(0, (width,))[0].argsort()
        half = width // 2
        i, j = order[:half], order[half : 2 * half]
        chance = stream.split(sweep + 1).uniform(step, (half,))
        a, b = exchange(state[:, i], state[:, j], chance)
        allowed = (a >= low[:, i]) & (a <= high[:, i]) & (b >= low[:, j]) & (b <= high[:, j])
        state[:, i] = torch.where(allowed, a, state[:, i])
        state[:, j] = torch.where(allowed, b, state[:, j])
    return state


def rotate(a: Tensor, b: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (a, b) to a uniform angle: a² + b² is kept."""
    radius, angle = torch.hypot(a, b), 2 * math.pi * chance
    return radius * angle.cos(), radius * angle.sin()


def split(a: Tensor, b: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """Divide |a| + |b| uniformly, with random signs: the sum of magnitudes is kept."""
    total, signs = a.abs() + b.abs(), (chance * 4).floor()
    share = chance * 4 - signs
    return (
        total * share * torch.where(signs % 2 == 0, 1.0, -1.0),
        total * (1 - share) * torch.where(signs < 2, 1.0, -1.0),
    )


def accepted(draw: Callable[[int], Tensor], gauge: Callable[[Tensor], Tensor], limits: Limits | None) -> Tensor:
    """Return the first of a few draws that obeys limits and gauge; else the first, clipped and scaled back inside.

    Args:
        draw: number of the attempt → uniform points of a set, [N, *features].
        gauge: of the convex set wanted.
    """
    first = draw(0)
    chosen, kept = first, _obeys(first, gauge, limits)
    for attempt in range(1, _REDRAWS):
        if bool(kept.all()):
            return chosen
        again = draw(attempt)
        fits = _obeys(again, gauge, limits) & ~kept
        chosen, kept = torch.where(expand(fits, again), again, chosen), kept | fits
    clipped = first if limits is None else torch.clamp(first, *limits)
    return torch.where(expand(kept, chosen), chosen, shrunk(clipped, gauge(clipped)))


def _obeys(point: Tensor, gauge: Callable[[Tensor], Tensor], limits: Limits | None) -> Tensor:
    fits = gauge(point) <= 1
    if limits is None:
        return fits
    return fits & flat((point >= limits[0]) & (point <= limits[1])).all(1)
