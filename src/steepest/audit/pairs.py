"""Every two of several audited models, held against each other example by example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from steepest.audit.api import AuditRun
from steepest.audit.paired import Medians, Shares, holm, medians, shares
from steepest.audit.store import RunFolder
from steepest.audit.tally import columns, unbroken


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on the same examples; differences are first less second.

    Attributes:
        clean: who is right at x.
        sizes: (ε, who is still right there), in rising order of ε.
        radius: the smallest radius found.
    """

    first: str
    second: str
    clean: Shares
    sizes: tuple[tuple[float, Shares], ...]
    radius: Medians

    def to_record(self) -> dict[str, Any]:
        """Return the pair as plain JSON values."""
        sizes = [{"epsilon": epsilon, **asdict(found)} for epsilon, found in self.sizes]
        return {**asdict(self), "sizes": sizes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a finished run says of each example, [N].

    Attributes:
        clean: right at x.
        sizes: (ε, still right there) for every audited ε.
        radius: the smallest radius found; 0 where wrong at x, ∞ where nothing broke it.
    """

    clean: NDArray[np.bool_]
    sizes: tuple[tuple[float, NDArray[np.bool_]], ...]
    radius: NDArray[np.float64]

    @property
    def median(self) -> float | None:
        """The median of the radius over all examples; None where more than half have none."""
        return medians(self.radius, self.radius).first


def held(run: AuditRun) -> Held:
    """Return what a finished run says of each example, in the order of their ids."""
    folder = RunFolder(run.folder)
    manifest = folder.manifest()
    rows = columns(folder.table(manifest["shards"]))
    epsilons = manifest["epsilons"]
    radius = rows["radius"].astype(float)
    # What met a number that is not finite is robust at no ε, so its radius may not count as beyond them all.
    beyond = np.where(rows["status"] == "nonfinite", 0.0, np.inf)
    return Held(
        clean=~np.equal(rows["broken_by"], "clean"),
        sizes=tuple((each, unbroken(rows, each / epsilons[-1] if epsilons[-1] else 1.0)) for each in epsilons),
        radius=np.where(np.isnan(radius), beyond, radius),
    )


def pairs(models: Mapping[str, Held], *, seed: int = 0) -> tuple[Pair, ...]:
    """Return every two of the models; p-values are adjusted for the number of pairs that answer one question.

    >>> right = np.array([True, True, False])
    >>> one = Held(clean=right, sizes=((0.1, ~right),), radius=np.array([1.0, 2.0, 0.0]))
    >>> [(each.first, each.second, each.clean.difference) for each in pairs({"a": one, "b": one})]
    [('a', 'b', 0.0)]
    """
    couples = list(combinations(models.items(), 2))
    both = [(one, other) for (_, one), (_, other) in couples]
    clean = _adjusted([shares(one.clean, other.clean, seed=seed) for one, other in both])
    sizes = [
        _adjusted([shares(one.sizes[at][1], other.sizes[at][1], seed=seed) for one, other in both])
        for at in range(len(both[0][0].sizes) if both else 0)
    ]
    return tuple(
        Pair(
            first=first,
            second=second,
            clean=clean[place],
            sizes=tuple((epsilon, found[place]) for (epsilon, _), found in zip(one.sizes, sizes, strict=True)),
            radius=medians(one.radius, other.radius, seed=seed),
        )
        for place, ((first, one), (second, other)) in enumerate(couples)
    )


def _adjusted(found: list[Shares]) -> list[Shares]:
    values = holm([each.p for each in found])
    return [replace(each, adjusted=value) for each, value in zip(found, values, strict=True)]
