"""A reader of VNN-LIB 1.0: what a property asks of a network, as boxes of inputs and linear conditions on outputs."""

from __future__ import annotations

import gzip
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.certify.expressions import Expression, expressions

ENDINGS = (".vnnlib", ".vnnlib.gz")

_IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "exit")
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d*)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

_MOST = 100_000
"""So many combinations of alternatives are written out; more are refused."""

_ALLOWED = "allowed are (<= t u), (>= t u), (= t u), (and ...) and (or ...)"
_TERMS = "allowed are numbers, X_i, Y_j, and (+ ...), (- ...), (* ...) with at most one factor that is no number"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conjunction:
    """The outputs y with rows · y ≤ most, every line of it.

    Attributes:
        rows: float64 [R, K].
        most: float64 [R].
    """

    rows: Tensor
    most: Tensor

    def holds(self, y: Tensor) -> Tensor:
        """Return bool [N]: whether all lines hold for outputs y [N, K], decided in float64 without tolerance."""
        return ((y.double() @ self.rows.T) <= self.most).all(1)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A box of inputs, and conditions on outputs of which one must hold.

    Attributes:
        lower, upper: float64 [n], the inputs in the order of their numbers.
        either: the conjunctions; one without lines holds always.
    """

    lower: Tensor
    upper: Tensor
    either: tuple[Conjunction, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Property:
    """The question whether some input x of some case has outputs that meet one of its conjunctions.

    Attributes:
        inputs, outputs: how many X and Y are declared.
        cases: none where every box is empty.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]


def read_property(path: str | Path) -> Property:
    """Return the property in a file, which may be compressed (.gz); see `parse_property`.

    Raises:
        UsageError: the file is missing or damaged, or holds what is not allowed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(
            f"{str(path)!r} cannot be read ({error}): give a VNN-LIB file, .vnnlib or .vnnlib.gz."
        ) from None
    return parse_property(text, name=str(path))


def parse_property(text: str, *, name: str = "the property") -> Property:
    """Return what a text in VNN-LIB 1.0 asserts, as cases: every combination of its alternatives, by boxes.

    Asserted may be bounds of single inputs and linear relations between outputs, joined by `and` and `or` in any
    depth. Numbers are read as float64.

    Raises:
        UsageError: a term that is none of these (not linear, inputs and outputs in one relation, an input without a
            bound, a name that is not declared, ...); names line, term, and what is allowed.

    >>> found = parse_property('''
    ...     (declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
    ...     (assert (>= X_0 -1)) (assert (<= X_0 0.5)) (assert (or (<= Y_0 Y_1) (>= Y_0 3)))
    ... ''')
    >>> (case,) = found.cases; case.upper, [part.rows.tolist() for part in case.either]
    (tensor([0.5000], dtype=torch.float64), [[[1.0, -1.0]], [[-1.0, 0.0]]])
    """
    declared: dict[str, int] = {}
    asserted: list[list[_Atoms]] = []
    for command in expressions(text, name):
        head = command.parts[0].text if command.parts and not command.text else None
        if head in ("declare-const", "declare-fun"):
            _declare(command, declared)
        elif head == "assert" and len(command.parts) == 2:
            asserted.append(list(_alternatives(command.parts[1], declared)))
        elif head not in _IGNORED:
            raise command.refused(
                "is no command of VNN-LIB 1.0", "allowed are (declare-const NAME Real) and (assert F)"
            )
    counts = {kind: _count(kind, declared, name) for kind in "XY"}
    return _Layout(name=name, inputs=counts["X"], outputs=counts["Y"], lines=declared).property(asserted)


def _declare(command: Expression, declared: dict[str, int]) -> None:
    words = [part.text for part in command.parts]
    plain = len(words) == 3 and words[0] == "declare-const"
    function = len(words) == 4 and words[0] == "declare-fun" and words[2] is None and not command.parts[2].parts
    symbol = words[1] if plain or function else None
    if symbol is None or words[-1] != "Real" or not _VARIABLE.fullmatch(symbol):
        raise command.refused("declares something else than inputs and outputs", "write (declare-const X_0 Real)")
    if symbol in declared:
        raise command.refused(f"declares {symbol} again", "declare each name once")
    declared[symbol] = command.line


def _count(kind: str, declared: dict[str, int], name: str) -> int:
    numbers = sorted(int(symbol[2:]) for symbol in declared if symbol[0] == kind)
    missing = next((place for place, number in enumerate(numbers) if place != number), len(numbers))
    if missing < len(numbers) or not numbers:
        raise UsageError(
            f"{name}: {kind}_{missing} is not declared: declare X_0, X_1, ... for all inputs and Y_0, Y_1, ... for all "
            f"outputs, e.g. (declare-const {kind}_{missing} Real)."
        )
    return len(numbers)


@dataclass(frozen=True, slots=True)
class _Linear:
    """Σ coefficient · variable + constant."""

    coefficients: dict[str, float]
    constant: float

    def plus(self, other: _Linear, factor: float = 1.0) -> _Linear:
        summed = dict(self.coefficients)
        for symbol, value in other.coefficients.items():
            summed[symbol] = summed.get(symbol, 0.0) + factor * value
        return _Linear(summed, self.constant + factor * other.constant)


@dataclass(frozen=True, slots=True)
class _Atom:
    """linear ≤ 0, and where it was written."""

    linear: _Linear
    at: Expression


_Atoms = tuple[_Atom, ...]


def _alternatives(formula: Expression, declared: dict[str, int]) -> Iterator[_Atoms]:
    """Yield the conjunctions of which one must hold."""
    head = formula.parts[0].text if formula.parts else None
    rest = formula.parts[1:]
    if head == "or":
        for part in rest:
            yield from _alternatives(part, declared)
    elif head == "and":
        parts = [list(_alternatives(part, declared)) for part in rest]
        if math.prod(len(part) for part in parts) > _MOST:
            raise formula.refused(f"has more than {_MOST:,} combinations of alternatives", "split the property")
        for chosen in itertools.product(*parts):
            yield tuple(itertools.chain.from_iterable(chosen))
    elif head in ("<=", ">=", "=") and len(rest) == 2:
        left, right = (_linear(part, declared) for part in rest)
        below, above = _Atom(left.plus(right, -1.0), formula), _Atom(right.plus(left, -1.0), formula)
        yield {"<=": (below,), ">=": (above,), "=": (below, above)}[head]
    else:
        raise formula.refused("is no condition that can be decided", _ALLOWED)


def _linear(term: Expression, declared: dict[str, int]) -> _Linear:
    if term.text is not None:
        if term.text in declared:
            return _Linear({term.text: 1.0}, 0.0)
        if _NUMBER.fullmatch(term.text) and math.isfinite(float(term.text)):
            return _Linear({}, float(term.text))
        known = "is not declared" if _VARIABLE.fullmatch(term.text) else "is no number and no variable"
        raise term.refused(known, _TERMS)
    head = term.parts[0].text if term.parts else None
    parts = [_linear(part, declared) for part in term.parts[1:]] if head in ("+", "-", "*") else []
    if not parts:
        raise term.refused("is no linear term", _TERMS)
    made = parts[0]
    if head == "-" and len(parts) == 1:
        return _Linear({}, 0.0).plus(made, -1.0)
    for part in parts[1:]:
        if head == "*":
            if made.coefficients and part.coefficients:
                raise term.refused("is not linear", _TERMS)
            varying, factor = (made, part.constant) if made.coefficients else (part, made.constant)
            made = _Linear({}, 0.0).plus(varying, factor)
        else:
            made = made.plus(part, 1.0 if head == "+" else -1.0)
    return made


@dataclass(slots=True)
class _Part:
    """A box under construction, and lines on the outputs."""

    lower: Tensor
    upper: Tensor
    rows: list[tuple[Tensor, float]] = field(default_factory=list)
    possible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How many variables there are, and where they were declared."""

    name: str
    inputs: int
    outputs: int
    lines: dict[str, int]

    def property(self, asserted: Sequence[list[_Atoms]]) -> Property:
        """Return the cases: what holds in all of them is worked out once."""
        everywhere = torch.full((self.inputs,), torch.inf, dtype=torch.float64)
        shared = _Part(-everywhere, everywhere)
        several = [choices for choices in asserted if len(choices) != 1]
        for choices in asserted:
            if len(choices) == 1:
                self._met(shared, choices[0])
        if math.prod(len(choices) for choices in several) > _MOST:
            raise UsageError(
                f"{self.name}: its alternatives have more than {_MOST:,} combinations: split the property."
            )
        found: dict[tuple[bytes, bytes], list[_Part]] = {}
        for chosen in itertools.product(*several):
            part = _Part(shared.lower.clone(), shared.upper.clone(), list(shared.rows), shared.possible)
            for atoms in chosen:
                self._met(part, atoms)
            self._require_bounds(part)
            if part.possible and bool((part.lower <= part.upper).all()):
                key = part.lower.numpy().tobytes(), part.upper.numpy().tobytes()
                found.setdefault(key, []).append(part)
        return Property(inputs=self.inputs, outputs=self.outputs, cases=tuple(map(self._case, found.values())))

    def _case(self, parts: list[_Part]) -> Case:
        either = tuple(
            Conjunction(
                rows=torch.stack([row for row, _ in part.rows]) if part.rows else torch.zeros(0, self.outputs).double(),
                most=torch.tensor([most for _, most in part.rows], dtype=torch.float64),
            )
            for part in parts
        )
        return Case(lower=parts[0].lower, upper=parts[0].upper, either=either)

    def _met(self, part: _Part, atoms: _Atoms) -> None:
        """Add conditions to a part."""
        for atom in atoms:
            coefficients = {symbol: value for symbol, value in atom.linear.coefficients.items() if value}
            kinds = {symbol[0] for symbol in coefficients}
            most = 0.0 - atom.linear.constant
            if not math.isfinite(most) or not all(map(math.isfinite, coefficients.values())):
                raise atom.at.refused("has a number that is not finite in float64", "scale it")
            if not kinds:
                part.possible &= most >= 0
            elif kinds == {"Y"}:
                row = torch.zeros(self.outputs, dtype=torch.float64)
                for symbol, value in coefficients.items():
                    row[int(symbol[2:])] = value
                part.rows.append((row, most))
            elif kinds == {"X"} and len(coefficients) == 1:
                ((symbol, value),) = coefficients.items()
                at, bound = int(symbol[2:]), most / value + 0.0  # no −0
                if value > 0:
                    part.upper[at] = min(float(part.upper[at]), bound)
                else:
                    part.lower[at] = max(float(part.lower[at]), bound)
            elif kinds == {"X"}:
                raise atom.at.refused("relates several inputs", "inputs may have bounds only: (<= X_0 1)")
            else:
                raise atom.at.refused("relates inputs to outputs", "relations may be between outputs only")

    def _require_bounds(self, part: _Part) -> None:
        for side, bound in (("lower", part.lower), ("upper", part.upper)):
            free = bound.isinf().nonzero()
            if len(free):
                symbol = f"X_{int(free[0])}"
                raise UsageError(
                    f"{self.name}, line {self.lines[symbol]}: the input {symbol} has no {side} bound in some case: "
                    f"assert one for every input, e.g. (assert ({'>=' if side == 'lower' else '<='} {symbol} 0))."
                )
