"""Random numbers that belong to an example: a hash of (seed, example, step, coordinate).

A draw does not depend on batchmates, on order, or on which examples have already left the batch, so a run
that is resumed, re-batched or split over machines sees the same numbers.
The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014), applied once per component.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor


def _wrap(number: int) -> int:
    """Any Python integer as a signed 64-bit one, the only kind that torch multiplies."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


_GOLDEN = _wrap(0x9E3779B97F4A7C15)
_MIX_1 = _wrap(0xBF58476D1CE4E5B9)
_MIX_2 = _wrap(0x94D049BB133111EB)


def _shift(bits: Tensor, count: int) -> Tensor:
    """Logical right shift; torch's own shift on int64 copies the sign."""
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Scramble `bits` in place, which must belong to nobody else; new memory would cost more than the arithmetic."""
    bits.bitwise_xor_(_shift(bits, 30)).mul_(_MIX_1)
    bits.bitwise_xor_(_shift(bits, 27)).mul_(_MIX_2)
    return bits.bitwise_xor_(_shift(bits, 31))


@final
class Stream:
    """One sequence of random tensors per example, addressed by step numbers instead of by order of calls.

    `keys` [N] holds the hash of (seed, example id). The same (seed, id, step, shape) gives the same numbers on
    every device and in every batch.

    >>> a = Stream.of(0, torch.arange(4)); b = a.rows(torch.tensor([2]))
    >>> bool((a.uniform(7, (3,))[2] == b.uniform(7, (3,))[0]).all())
    True
    """

    __slots__ = ("_keys", "_salts")

    def __init__(self, keys: Tensor, salts: tuple[int, ...] = ()) -> None:
        self._keys, self._salts = keys, salts

    @property
    def keys(self) -> Tensor:
        """The hashes, [N]; split when first asked for, since many a search draws nothing."""
        for salt in self._salts:
            self._keys = _mix(self._keys + _wrap(salt * _GOLDEN + 1))
        self._salts = ()
        return self._keys

    @staticmethod
    def of(seed: int, ids: Tensor) -> Stream:
        """Return the streams of the examples `ids` [N] (integers) under `seed`."""
        return Stream(_mix(_mix(ids.long() * _GOLDEN + _wrap(seed)) + _GOLDEN))

    def rows(self, index: Tensor) -> Stream:
        """Return the streams of the examples that `index` selects."""
        return Stream(self._keys[index], self._salts)

    def split(self, salt: int) -> Stream:
        """Return independent streams of the same examples, e.g. one per restart."""
        return Stream(self._keys, (*self._salts, salt))

    def spread(self, count: int) -> Stream:
        """Return `count` independent streams per example, those of one example next to each other, [N · count]."""
        salts = torch.arange(1, count + 1, device=self.keys.device) * _MIX_2
        return Stream(_mix(_mix(self.keys[:, None] + salts)).reshape(-1))

    def uniform(self, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return float64 numbers in [0, 1) of shape [N, *shape]; `step` is a number or one per example [N]."""
        return _shift(self._bits(step, shape), 11).double().mul_(2.0**-53)

    def normal(self, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return independent standard normal numbers in float64 of shape [N, *shape] (Box & Muller 1958)."""
        first, second = self.uniform(step, (2, *shape)).unbind(1)
        return first.neg_().log1p_().mul_(-2).sqrt_().mul_(second.mul_(2 * math.pi).cos_())

    def exponential(self, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return independent Exp(1) numbers in float64 of shape [N, *shape]."""
        return self.uniform(step, shape).neg_().log1p_().neg_()

    def signs(self, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return −1 and +1 with equal probability in float64, shape [N, *shape]."""
        # The first bit of each number, 0 or −1 when all others are shifted out, is whether it is at least ½.
        return self._bits(step, shape).bitwise_right_shift_(63).double().mul_(-2).sub_(1)

    def _bits(self, step: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return 64 random bits for each number of a draw, int64 [N, *shape], in memory of their own."""
        keys = self.keys
        coordinate = torch.arange(1, math.prod(shape) + 1, device=keys.device) * _GOLDEN
        offset = step.to(keys) * _MIX_1 if isinstance(step, Tensor) else _wrap(step * _MIX_1)
        return _mix(_mix(keys + offset)[:, None] + coordinate).reshape(keys.shape[0], *shape)
