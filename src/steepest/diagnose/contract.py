"""What a check says, what it rests on, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from torch import Tensor


class Level(StrEnum):
    """How bad a finding is; a check that could not run never passes."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_RUN = "not run"


class Family(StrEnum):
    """What a failed check is a sign of, in the words of the verdict."""

    MASKED = "masked"
    STOCHASTIC = "stochastic"
    LOSS = "loss artefact"
    UNFINISHED = "not converged"
    ONE_STEP = "overfitted to one step"
    INFORMATION = "information"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What would mend a number: a name of `remedies.REMEDIES` with its parameters; whoever measured may apply it."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The call as text.

        >>> Remedy(name="expectation", parameters={"draws": 20}).text
        'expectation(draws=20)'
        """
        inner = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return f"{self.name}({inner})" if inner else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line or one group of bars: y over x."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The numbers of a picture; who shows a finding draws it.

    Attributes:
        kind: "lines", "bars" or "histogram" (x: left edges of bins of equal width, y: counts).
    """

    kind: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one check found out.

    Attributes:
        says: one sentence with the number, for a reader who knows nothing of the check.
        statistic, threshold: the number judged, and the value from which on it is no PASS; None where there is none.
        flagged: bool [N], the examples behind the level, in the order of the probe; None: no example stands out.
        advice: what the reader should do; empty for a PASS.
        of: how many examples were measured; None: all of the probe.
        family: what this is a sign of, where that depends on what was found; None: the check's own.
    """

    level: Level
    says: str
    statistic: float | None = None
    threshold: float | None = None
    flagged: Tensor | None = None
    advice: str = ""
    remedy: Remedy | None = None
    picture: Picture | None = None
    of: int | None = None
    family: Family | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's word, ready to be kept and shown: plain numbers and texts.

    Attributes:
        check: the name in `steepest list checks`.
        question: what it asks, for a reader.
        family: what a FAIL or WARN is a sign of.
        examples: ids behind the level, rising; at most 100.
        of: examples measured.
        forwards, backwards: passes over examples that it asked for; what it read from others' questions is not counted.

    >>> made = Finding(
    ...     check="gradients", question="?", family=Family.MASKED, level=Level.PASS, says="finite", source="a paper"
    ... )
    >>> Finding.from_record(made.to_record()) == made
    True
    """

    check: str
    question: str
    family: Family
    level: Level
    says: str
    source: str
    statistic: float | None = None
    threshold: float | None = None
    examples: tuple[int, ...] = ()
    of: int = 0
    advice: str = ""
    remedy: Remedy | None = None
    picture: Picture | None = None
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the finding that a record describes."""
        remedy, picture = record["remedy"], record["picture"]
        made = {
            **record,
            "family": Family(record["family"]),
            "level": Level(record["level"]),
            "examples": tuple(record["examples"]),
            "remedy": None if remedy is None else Remedy(**remedy),
            "picture": None if picture is None else _picture(picture),
        }
        return cls(**made)


def _picture(record: Mapping[str, Any]) -> Picture:
    series = tuple(Series(name=each["name"], x=tuple(each["x"]), y=tuple(each["y"])) for each in record["series"])
    return Picture(**{**record, "series": series})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How far a robust accuracy can be believed.

    Attributes:
        word: "masked", "stochastic", "loss artefact", "not converged", "overfitted to one step" or "no sign of
            masking found"; never "robust".
        believable: whether a number may rest on what was measured.
        reasons: in order of weight, one sentence each.
        next: the next thing to do.
        remedies: what the findings ask for, each once, in the order of the reasons; where gradients are masked also
            a surrogate and a search without gradients.

    >>> from steepest.diagnose.verdict import verdict
    >>> verdict([]).believable
    False
    """

    word: str
    believable: bool
    reasons: tuple[str, ...]
    next: str
    remedies: tuple[Remedy, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the verdict that a record describes."""
        remedies = tuple(Remedy(**each) for each in record["remedies"])
        return cls(**{**record, "reasons": tuple(record["reasons"]), "remedies": remedies})


class NotRun(Exception):
    """Raised inside a check that does not apply, with the reason; the panel turns it into NOT_RUN."""
