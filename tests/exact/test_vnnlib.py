"""Properties in VNN-LIB 1.0: what is read is what is written, and what cannot be decided is refused by name."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest
import torch

from steepest.basis.errors import UsageError
from steepest.certify.vnnlib import Case, Property, parse_property, read_property


def declared(inputs: int, outputs: int) -> str:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(outputs)]
    return "\n".join(f"(declare-const {name} Real)" for name in names) + "\n"


UNIT = "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 2))\n"


def read(asserted: str, inputs: int = 2, outputs: int = 2, box: str = UNIT) -> Property:
    return parse_property(declared(inputs, outputs) + box + asserted)


def lines(case: Case) -> list[list[tuple[list[float], float]]]:
    """Each conjunction as its (row, most)."""
    return [
        [(row.tolist(), float(most)) for row, most in zip(part.rows, part.most, strict=True)] for part in case.either
    ]


def test_a_box_and_one_relation() -> None:
    found = read("(assert (<= Y_0 Y_1)) ; the second is not smaller")
    assert (found.inputs, found.outputs) == (2, 2)
    (case,) = found.cases
    assert case.lower.tolist() == [0, -1] and case.upper.tolist() == [1, 2] and case.lower.dtype == torch.float64
    assert lines(case) == [[([1, -1], 0)]]


@pytest.mark.parametrize(
    ("text", "row", "most"),
    [
        ("(<= Y_0 3.5)", [1, 0], 3.5),
        ("(>= Y_0 -1e-2)", [-1, 0], 0.01),
        ("(<= -2 Y_1)", [0, -1], 2),
        ("(>= Y_1 Y_0)", [1, -1], 0),
        ("(<= (+ Y_0 (* -2 Y_1) 1) 4)", [1, -2], 3),
        ("(<= (- Y_0 Y_1 0.5) 0)", [1, -1], 0.5),
        ("(<= (- Y_0) (- 3))", [-1, 0], -3),
        ("(>= (* Y_1 0.25) (+ Y_0 Y_0))", [2, -0.25], 0),
        ("(<= (* 2 (+ Y_0 1) 3) .5)", [6, 0], -5.5),
        ("(and (<= Y_0 1))", [1, 0], 1),
        ("(or (and (<= Y_0 +1.)))", [1, 0], 1),
    ],
)
def test_linear_relations_in_every_form(text: str, row: list[float], most: float) -> None:
    (case,) = read(f"(assert {text})").cases
    assert lines(case) == [[(row, most)]]


def test_several_asserts_hold_together_and_alternatives_alone() -> None:
    (case,) = read("(assert (<= Y_0 1)) (assert (or (<= Y_1 0) (and (>= Y_1 5) (>= Y_0 Y_1))))").cases
    assert lines(case) == [[([1, 0], 1), ([0, 1], 0)], [([1, 0], 1), ([0, -1], -5), ([-1, 1], 0)]]


def test_an_equation_is_two_lines() -> None:
    (case,) = read("(assert (= Y_0 2)) (assert (= X_0 0.5))").cases
    assert lines(case) == [[([1, 0], 2), ([-1, 0], -2)]]
    assert case.lower.tolist() == [0.5, -1] and case.upper.tolist() == [0.5, 2]


def test_alternatives_of_inputs_are_boxes_of_their_own() -> None:
    text = """
    (assert (or
        (and (<= X_0 0.25) (>= X_0 -7) (<= Y_0 0))
        (and (>= X_0 0.75) (<= (* -2 X_1) 1) (<= Y_1 0))
        (and (<= X_0 0.25) (<= Y_1 1))
        (and (>= X_0 3) (<= Y_1 1))))
    """
    first, second = read(text).cases  # the fourth box is empty, the first and third are one
    assert first.lower.tolist() == [0, -1] and first.upper.tolist() == [0.25, 2]
    assert lines(first) == [[([1, 0], 0)], [([0, 1], 1)]]
    assert second.lower.tolist() == [0.75, -0.5] and lines(second) == [[([0, 1], 0)]]


def test_a_property_like_those_of_collision_avoidance() -> None:
    box = "\n".join(f"(assert (<= X_{i} {i}.5))\n(assert (>= X_{i} -{i}e-1))" for i in range(5))
    least = "(assert (or " + " ".join(f"(and (<= Y_{j} Y_0))" for j in range(1, 5)) + "))"
    found = read(least, 5, 5, box)
    (case,) = found.cases
    assert case.upper.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert case.lower.tolist() == pytest.approx([0, -0.1, -0.2, -0.3, -0.4])
    for j, part in enumerate(case.either, 1):
        wanted = torch.zeros(5)
        wanted[j], wanted[0] = 1, -1
        assert part.rows.tolist() == [wanted.tolist()] and part.most.tolist() == [0]


def test_what_is_read_holds_exactly_where_the_text_holds() -> None:
    text = "(assert (or (<= (+ Y_0 Y_1) 1) (and (>= Y_0 Y_1) (or (>= Y_1 0.5) (<= (* 3 Y_0) -1)))))"
    (case,) = read(text).cases
    for a, b in itertools.product(torch.linspace(-2, 2, 17).tolist(), repeat=2):
        said = a + b <= 1 or (a >= b and (b >= 0.5 or 3 * a <= -1))
        y = torch.tensor([[a, b]], dtype=torch.float64)
        assert any(bool(part.holds(y)) for part in case.either) == said


def test_what_always_or_never_holds() -> None:
    (free,) = read("(assert (<= Y_0 Y_0)) (assert (<= 1 2))").cases
    assert lines(free) == [[]] and bool(free.either[0].holds(torch.zeros(1, 2)))
    assert read("(assert (>= X_0 1.5))").cases == ()
    assert read("(assert (>= 1 (+ 1 1)))").cases == ()
    (point,) = read("(assert (>= X_0 1))").cases
    assert point.lower[0] == point.upper[0] == 1


def test_commands_that_change_nothing_and_the_older_declaration() -> None:
    text = "(set-logic QF_LRA) (declare-fun X_0 () Real) (declare-const Y_0 Real)\n"
    found = parse_property(text + "(assert (<= X_0 1)) (assert (>= X_0 0)) (assert (<= Y_0 0)) (check-sat)")
    assert (found.inputs, found.outputs, len(found.cases)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(assert (<= (* Y_0 Y_1) 1))", ("line 6: (* Y_0 Y_1) is not linear", "(* ...)")),
        ("\n(assert (<= (+ Y_0 X_1) 1))", ("line 7", "relates inputs to outputs")),
        ("(assert (<= (+ X_0 X_1) 1))", ("relates several inputs", "bounds only")),
        ("(assert (< Y_0 1))", ("(< Y_0 1) is no condition", "(<= t u)")),
        ("(assert (not (<= Y_0 1)))", ("(not (<= Y_0 1))", "(or ...)")),
        ("(assert (let ((a Y_0)) (<= a 1)))", ("(let", "(and ...)")),
        ("(assert (=> (<= Y_0 1) (<= Y_1 1)))", ("(=>",)),
        ("(assert (<= Y_0 Y_1 1))", ("(<= Y_0 Y_1 1)",)),
        ("(assert (<= (/ Y_0 2) 1))", ("(/ Y_0 2) is no linear term", "numbers")),
        ("(assert (<= (ite (<= Y_0 0) Y_0 Y_1) 1))", ("is no linear term",)),
        ("(assert (<= Y_2 1))", ("Y_2 is not declared",)),
        ("(assert (<= Z Y_1))", ("Z is no number and no variable",)),
        ("(assert (<= Y_0 nan))", ("nan is no number",)),
        ("(assert (<= Y_0 1e999))", ("1e999",)),
        ("(assert (<= Y_0 (* 1e300 1e300)))", ("not finite",)),
        ("(assert Y_0)", ("Y_0 is no condition",)),
        ("(assert)", ("(assert) is no command",)),
        ("(vnnlib-version <2.0>)", ("(vnnlib-version <2.0>) is no command of VNN-LIB 1.0",)),
        ("(define-fun f () Real 1)", ("no command",)),
        ("(declare-const X_0 Real)", ("declares X_0 again",)),
        ("(declare-const X_2 Int)", ("(declare-const X_2 Int)", "(declare-const X_0 Real)")),
        ("(declare-const input Real)", ("something else than inputs and outputs",)),
        ("(declare-const Y_3 Real)", ("Y_2 is not declared",)),
        ("(assert (<= Y_0 1)", ("line 6", "not closed")),
        ("(assert (<= Y_0 1)))", ("line 6", "not opened")),
        ("hello", ("hello stands outside",)),
        ("(assert " + "(or " * 300 + "(<= Y_0 1)" + ")" * 301, ("200 brackets",)),
    ],
)
def test_what_cannot_be_decided_is_refused_by_name(text: str, says: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as raised:
        read(text)
    for part in says:
        assert part in str(raised.value), str(raised.value)


def test_an_input_without_a_bound_is_refused() -> None:
    with pytest.raises(UsageError, match="line 2: the input X_1 has no lower bound"):
        read("(assert (<= Y_0 1))", box="(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (<= X_1 1))")
    with pytest.raises(UsageError, match="X_0 has no upper bound in some case"):
        read("(assert (or (<= X_0 1) (<= Y_0 1)))", box="(assert (>= X_0 0)) (assert (= X_1 1))")
    with pytest.raises(UsageError, match="X_0 is not declared"):
        parse_property("(declare-const Y_0 Real)")


def test_alternatives_that_multiply_beyond_reason_are_refused() -> None:
    two = "(or (<= Y_0 1) (<= Y_1 1))"
    with pytest.raises(UsageError, match="100,000 combinations"):
        read(f"(assert {two})" * 17)
    with pytest.raises(UsageError, match="100,000 combinations"):
        read(f"(assert (and {two * 17}))")
    assert len(read(f"(assert {two})" * 5).cases[0].either) == 32


def test_files_also_compressed(tmp_path: Path) -> None:
    text = declared(2, 2) + UNIT + "(assert (<= Y_0 Y_1))"
    (tmp_path / "a.vnnlib").write_text(text)
    (tmp_path / "b.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.vnnlib", "b.vnnlib.gz"):
        assert read_property(tmp_path / name).cases[0].upper.tolist() == [1, 2]
    (tmp_path / "c.vnnlib.gz").write_bytes(gzip.compress(text.encode())[:40])
    (tmp_path / "d.vnnlib").write_bytes(b"\xff\xfe")
    for name in ("c.vnnlib.gz", "d.vnnlib", "missing.vnnlib"):
        with pytest.raises(UsageError, match=name):
            read_property(tmp_path / name)
