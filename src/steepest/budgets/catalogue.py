"""The budgets by name, and the reader of texts such as `linf:8/255`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from steepest.basis.catalogue import Catalogue, parse_number
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget
from steepest.budgets.ellipsoid import Ellipsoid
from steepest.budgets.intersection import Intersection
from steepest.budgets.l0 import L0, pixels
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.pixel_l2 import PixelL2
from steepest.budgets.pixel_sum import PixelSum
from steepest.budgets.subspace import Subspace
from steepest.budgets.tabular import Tabular
from steepest.budgets.weighted import Weighted
from steepest.budgets.whole import Whole

BUDGETS: Catalogue[Budget] = Catalogue("budget")
BUDGETS.add("linf", {"text": "linf:8/255", "unit": "largest change of any value", "source": "Goodfellow et al. 2015"})(
    Linf
)
BUDGETS.add("l2", {"text": "l2:0.5", "unit": "Euclidean length of the change", "source": "Szegedy et al. 2014"})(L2)
BUDGETS.add("l1", {"text": "l1:12", "unit": "sum of all changes", "source": "Croce & Hein 2021"})(L1)
BUDGETS.add("l0", {"text": "l0:10", "unit": "number of changed values", "source": "Croce & Hein 2019"})(L0)
BUDGETS.add("pixels", {"text": "pixels:5", "unit": "number of changed pixels", "source": "Croce & Hein 2019"})(pixels)
BUDGETS.add(
    "pixel-l2",
    {"text": "pixel-l2:0.1", "unit": "largest Euclidean change of any pixel", "source": "a ball for every pixel"},
)(PixelL2)
BUDGETS.add(
    "pixel-sum",
    {"text": "pixel-sum:3", "unit": "sum of the Euclidean changes of all pixels", "source": "Yuan & Lin 2006"},
)(PixelSum)
BUDGETS.add(
    "weighted",
    {
        "text": "weighted:0.1 --feature-weights w.npy",
        "unit": "change over the feature's weight",
        "source": "Goodfellow et al. 2015, with a size per feature",
    },
)(Weighted)
BUDGETS.add(
    "masked",
    {
        "text": "any of them with --mask m.npy",
        "unit": "that of the inner budget",
        "source": "any budget, some features",
    },
)(Masked)
BUDGETS.add(
    "tabular",
    {
        "text": "in Python: st.Tabular(0.1, step=..., groups=...)",
        "unit": "change over the column's weight, or share of the changes allowed",
        "source": "Ebrahimi et al. 2018 for the categories",
    },
)(Tabular)
BUDGETS.add(
    "ellipsoid",
    {
        "text": "in Python: st.Ellipsoid(0.5, M)",
        "unit": "√(δᵀMδ) for the change δ",
        "source": "the level sets of a quadratic form",
    },
)(Ellipsoid)
BUDGETS.add(
    "subspace",
    {
        "text": "in Python: st.Subspace(st.L2(0.5), B), st.low_frequency(st.L2(0.5), 8), st.relations(st.L2(0.5), A)",
        "unit": "that of the inner budget",
        "source": "Guo, Frank & Weinberger 2019",
    },
)(Subspace)
BUDGETS.add(
    "intersection",
    {
        "text": "in Python: st.Intersection(st.L2(0.5), st.Linf(8 / 255))",
        "unit": "share of what all its budgets allow",
        "source": "several budgets at once",
    },
)(Intersection)

_SIZED: dict[str, Callable[[float], Budget]] = {
    "linf": Linf,
    "l2": L2,
    "l1": L1,
    "l0": L0,
    "pixels": pixels,
    "pixel-l2": PixelL2,
    "pixel-sum": PixelSum,
}
"""Budgets that one number describes."""

_KINDS: dict[type, str] = {
    Linf: "linf",
    L2: "l2",
    L1: "l1",
    L0: "l0",
    PixelL2: "pixel-l2",
    PixelSum: "pixel-sum",
    Weighted: "weighted",
    Ellipsoid: "ellipsoid",
    Subspace: "subspace",
    Intersection: "intersection",
    Tabular: "tabular",
}


def parse_budget(text: str, *, weights: Tensor | None = None, mask: Tensor | None = None) -> list[Budget]:
    """Return the budgets that a text names, in rising order of ε: `linf:8/255`, `l2:0.25,0.5,1`.

    Args:
        weights: for `weighted`: one weight per feature.
        mask: bool; only coordinates where it is true may move.

    Raises:
        UsageError: unknown name (near matches are offered), no number, a negative ε, weights missing or not used.

    >>> parse_budget("l2:0.5,0.25")
    [L2(0.25), L2(0.5)]
    """
    name, colon, numbers = text.strip().partition(":")
    name = name.strip().lower()
    entry = BUDGETS.entry(name)
    if entry.factory is Masked:
        raise UsageError(
            "budget 'masked' is not written alone: give the inner budget and --mask, e.g. linf:8/255 --mask m.npy."
        )
    if name not in _SIZED and entry.factory is not Weighted:
        raise UsageError(f"budget {name!r} needs more than a number: make it {entry.facts['text']}.")
    if not colon or not numbers.strip():
        raise UsageError(f"budget {text!r} has no size: write it after a colon in data units, e.g. {name}:8/255.")
    if (weights is None) == (entry.factory is Weighted):
        raise UsageError(
            f"budget {text!r} and --feature-weights do not go together: 'weighted' needs a file of weights, "
            "the others take none."
        )
    sizes = sorted({parse_number(part) for part in numbers.split(",")})
    found: list[Budget] = [Weighted(size, weights) if weights is not None else _SIZED[name](size) for size in sizes]
    return found if mask is None else [Masked(budget, mask) for budget in found]


def kind_of(budget: Budget) -> str:
    """Return the name of a budget's kind, seen through a mask: "linf", "l2"; for user sets the name of their type.

    "none" where only the box limits.

    >>> kind_of(Whole()), kind_of(L2(0.5))
    ('none', 'l2')
    """
    if isinstance(budget, Whole):
        return "none"
    while isinstance(budget, Masked):
        budget = budget.inner
    if isinstance(budget, L0) and budget.pixels:
        return "pixels"
    return _KINDS.get(type(budget), type(budget).__name__)


def unit_of(budget: Budget) -> str:
    """Return in words what ε bounds, e.g. "largest change of any value"; for user sets the name of their type."""
    while isinstance(budget, Masked | Subspace):
        budget = budget.inner
    kind = kind_of(budget)
    return BUDGETS.entry(kind).facts["unit"] if kind in BUDGETS.names() else kind
