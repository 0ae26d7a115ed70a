"""What the zoo says of one broken defence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

Group = Literal["masking", "random or stateful", "loss artefact", "overfitted", "harmless surrogate", "another success"]
Check = Literal[
    "gradients", "zero-gradient", "saturation", "objectives", "output-range", "randomness", "batch-dependence",
    "segment", "finite-differences", "single-step", "gradient-free", "noise", "unbounded", "convergence", "surrogate",
    "linearity", "alignment", "unfinished", "curvature", "rounding",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A defence that protects nothing, or that cannot be measured as it is.

    Attributes:
        what: it does, in a few words for a reader of the documentation.
        make: from a base network, the defence around it.
        control: the same construction with a harmless parameter.
        epsilon: of the L∞ budget that it is judged at; the base loses most of its accuracy there.
        flagged_by: the checks that must raise their hand, each by itself.
        looks_robust: whether one step of the fast gradient sign method on the cross-entropy takes less than half of
            what it takes from the base.
        own_weights: whether it is trained itself; if not, it predicts what the base predicts, but for a few points.
        remedy: what to do to measure it.
        note: what is particular about it.
    """

    name: str
    what: str
    group: Group
    make: Callable[[nn.Module], nn.Module]
    control: Callable[[nn.Module], nn.Module]
    flagged_by: tuple[Check, ...]
    remedy: str
    epsilon: float = 0.15
    looks_robust: bool = True
    own_weights: bool = False
    note: str = ""
