"""The rungs of the ladder: an attack, and which of the examples that nothing broke yet enter it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from steepest.attacks.contract import Attack
from steepest.certify.contract import Certifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One attack or certifier of a cascade.

    Attributes:
        name: in the ledger and in `broken_by`.
        work: what is run.
        rank: aims at the class of this rank, 0 the nearest by linearised distance; None: at no class.
        closest: so large a share of the unbroken examples enters, those with the smallest margins left, or where a
            class is aimed at, those with the smallest gaps to it.
        probe: so large a share of those, drawn at random, enters first, and the others if one of it falls. None: all.
        after: the name of an earlier rung: where that has broken an example of the shard, all enter at once.
        kinds: the kinds of budget for which it is meant; none named: all that the attack serves.
        units: a certifier is left out where the network has more hidden units than these.
        around: everything that is right at x enters, and what is looked for is a size: of a certifier the largest that
            is proven, of an attack the smallest that breaks, also beyond the budget.
    """

    name: str
    work: Attack | Certifier
    rank: int | None = None
    closest: float = 1.0
    probe: float | None = None
    after: str | None = None
    kinds: tuple[str, ...] = ()
    units: int | None = None
    around: bool = False

    @property
    def attack(self) -> Attack | None:
        """The attack, or None for a certifier."""
        return None if isinstance(self.work, Certifier) else self.work

    @property
    def certifier(self) -> Certifier | None:
        """The certifier, or None for an attack."""
        return self.work if isinstance(self.work, Certifier) else None

    @property
    def is_fgsm(self) -> bool:
        """Whether the gradient of the curve serves it."""
        return self.attack is not None and self.attack.is_fgsm

    @property
    def text(self) -> str:
        """What decides the rung's records, for the plan: the call, and who enters."""
        who = []
        if self.rank is not None:
            who.append(f"class {self.rank + 1}")
        if self.closest < 1:
            who.append(f"closest {self.closest:.3g}")
        if self.units is not None:
            who.append(f"at most {self.units} hidden units")
        if self.around:
            who.append("sizes")
        if self.probe is not None:
            who.append(f"a share of {self.probe:.3g} first" + (f" unless {self.after} found one" if self.after else ""))
        return self.work.call + (f" [{'; '.join(who)}]" if who else "")

    def entering(self, rows: Tensor, gap: Tensor) -> Tensor:
        """Return those of the unbroken examples `rows` that are close enough, in their order."""
        count = math.ceil(self.closest * rows.numel())
        if count >= rows.numel():
            return rows
        return rows[gap[rows].argsort(stable=True)[:count].sort().values]


def drawn(rows: Tensor, draw: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return (a simple random sample of `count` of the examples `rows`, the others); `draw` is uniform, one per row."""
    order = draw[rows].argsort(stable=True)
    return rows[order[:count].sort().values], rows[order[count:].sort().values]
