"""The plan of an audit, the row of an example, the ledger of a stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from steepest.basis.errors import UsageError, unknown

SCHEMA_VERSION = 2

RECORD = pa.schema(
    [
        pa.field("example_id", pa.int64(), False),
        pa.field("label", pa.int64(), False),
        pa.field("pixel_hash", pa.string(), False),
        pa.field("clean_prediction", pa.int64(), False),
        pa.field("clean_margin", pa.float64()),
        pa.field("broken", pa.bool_(), False),
        pa.field("broken_by", pa.string()),
        pa.field("proven_by", pa.string()),
        pa.field("proven_radius", pa.float64(), False),
        pa.field("proven_gauge", pa.float64(), False),
        pa.field("rounding", pa.bool_(), False),
        pa.field("adversarial_prediction", pa.int64(), False),
        pa.field("radius", pa.float64()),
        pa.field("radius_gauge", pa.float64()),
        pa.field("gauge", pa.float64(), False),
        pa.field("margin", pa.float64()),
        pa.field("forwards", pa.int64(), False),
        pa.field("backwards", pa.int64(), False),
        pa.field("status", pa.string(), False),
        pa.field("seed", pa.int64(), False),
        pa.field("fgsm_broken", pa.list_(pa.bool_()), False),
        pa.field("unconfirmed", pa.int64(), False),
    ]
)
"""One row per example. `broken_by` is "clean" where the model is wrong at x, the rung's name where an attack
succeeded ("assurance" where the full protocol did afterwards), null where none did; `proven_by` the certifier that
proved the largest budget, null where none did. `proven_radius` is the largest size in data units inside which nothing
breaks the example, as far as a certifier was asked, 0 where nothing is proven; `proven_gauge` is the same in units of
the largest budget; `rounding` says that a success inside it was one of the model's precision, gone in float64. `radius`
is the size in data units of the smallest success at any ε
tried, null if none; `radius_gauge` is the same in units of the largest budget. `gauge` (share of the largest budget
that is used), `margin` and `adversarial_prediction` belong to the worst point inside the largest budget. `fgsm_broken`
has one entry per factor of the plan. `unconfirmed` counts successes, of the model or of its twin, that the model, asked
again, did not repeat; `forwards` and `backwards` count passes of either."""

PRECISIONS = ("auto", "exact")
"""Whether the attacks may search in a faster twin of the model."""

_SIZES = ("batch_size", "shard_size")
"""Fields of a plan that the user may give; where they are left out they are found out once."""

_MEASURED = (*_SIZES, "threads", "prepared")
"""Fields of a plan that are found out once where they were left out."""

AFTERWARDS = ("assure", "diagnose")
"""Fields that decide what is done when all shards are there, so that a finished run can be asked for more."""

BLIND = ("zero_gradient", "nonfinite")
"""The statuses of examples that could not be attacked as they should have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides the records of a run; two runs with equal plans have equal records.

    What a mended search adds to them depends on what the checks found in the time they were given, so not on the plan
    alone.

    Attributes:
        model, data: sha256 of what is attacked and of the examples.
        input: how the model is used: box, normalisation, mode, device, output form, and a hash of its predictions
            on the examples looked at first.
        ids_hash: sha256 of the selected example ids.
        budgets: in rising order of ε, as text with a hash of every tensor.
        attacks: catalogue calls with all arguments, in order.
        factors: of the FGSM curve, in units of the largest budget.
        target: class index of a targeted audit, or None.
        precision: "auto", or "exact": the model itself is searched in.
        assure: so many survivors are drawn for the full protocol; 0: none. No part of the digest: the records of the
            shards do not depend on it.
        diagnose: say how far the number can be believed, and mend the search; no part of the digest either.
        batch_size, threads: measured once; part of the plan because kernels differ by batch size.
        shard_size: examples in a shard; rungs draw samples and find the closest examples within it.
        prepared: the changes that make the twin which is searched in, chosen once by measuring; none: the model.

    Raises:
        UsageError: an unknown precision, a negative size.
    """

    model: str
    data: str
    input: str
    ids_hash: str
    count: int
    budgets: tuple[str, ...]
    objective: str
    preset: str
    attacks: tuple[str, ...]
    factors: tuple[float, ...]
    target: int | None
    seed: int
    save: bool
    version: str
    assure: int = 0
    diagnose: bool = True
    batch_size: int = 0
    shard_size: int = 0
    threads: int = 0
    precision: str = "auto"
    prepared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for name in _SIZES:
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)} is not allowed: give a number of at least 1.")

    def digest(self) -> str:
        """Return the sha256 of all that decides the records of the shards."""
        asked = {name: value for name, value in asdict(self).items() if name not in AFTERWARDS}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Return "name: other → mine" for each field of the digest that was asked for differently, not left out."""
        found = []
        for field in fields(self):
            mine, theirs = _plain(getattr(self, field.name)), _plain(other.get(field.name))
            left_out = field.name in (*_MEASURED, *AFTERWARDS) and not (field.name in _SIZES and mine)
            if mine != theirs and not left_out:
                found.append(f"{field.name}: {_short(theirs)} → {_short(mine)}")
        return found


def sample_key(digest: str, count: int, *, mended: bool) -> str:
    """Return what names the sample of `count` survivors of the run with a plan's digest, and of its mended search."""
    return f"{digest} {count}" + (" mended" if mended else "")


def mended_key(digest: str) -> str:
    """Return what names the search that was mended after the diagnosis of the run with a plan's digest."""
    return f"{digest} mended"


@dataclass(slots=True, kw_only=True)
class Stage:
    """The ledger of one stage, added up over shards.

    Attributes:
        entered, broken: examples that came in, and those that it broke.
        proven: those that it proved robust; None where it is no certifier, or one that could say nothing.
        certifier: whether it is one.
        forwards, backwards: passes over examples.
        seconds: wall time.
        notes: what the attack said of itself, e.g. which objective took the place of one that needs more classes.
    """

    name: str
    epsilon: float
    entered: int = 0
    broken: int = 0
    proven: int | None = None
    certifier: bool = False
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def add(self, parts: Iterable[Stage], *, entered: int, broken: int) -> None:
        """Take in what one part of the examples took, whatever its stages were called."""
        self.entered += entered
        self.broken += broken
        for part in parts:
            self.forwards += part.forwards
            self.backwards += part.backwards
            self.seconds += part.seconds
            self.notes = tuple(dict.fromkeys((*self.notes, *part.notes)))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…{text[-12:]}"
