"""S-expressions: words and brackets, with the lines where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from steepest.basis.errors import UsageError

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+|\n")

_DEEP = 200
"""Brackets inside brackets; more are refused, since every level is a call."""


@final
@dataclass(slots=True, eq=False)
class Expression:
    """A word, or a list of expressions.

    Attributes:
        name: of the text that it stands in.
        line: where it begins, from 1.
        text: the word; None for a list.
        parts: of a list.
    """

    name: str
    line: int
    text: str | None = None
    parts: list[Expression] = field(default_factory=list)

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.parts))})" if self.text is None else self.text

    def refused(self, why: str, allowed: str) -> UsageError:
        """Return the error that names this expression, its line and what is allowed."""
        words = str(self)
        return UsageError(
            f"{self.name}, line {self.line}: {words if len(words) <= 80 else words[:77] + '...'} {why}; {allowed}."
        )


def expressions(text: str, name: str) -> Iterator[Expression]:
    """Yield the expressions of a text, one after the other; comments run from `;` to the end of the line.

    Raises:
        UsageError: a bracket is missing or superfluous, or there are too many inside each other.

    >>> [str(each) for each in expressions("(a (b 1)) ; c\\n(d)", "text")]
    ['(a (b 1))', '(d)']
    """
    line, open_ = 1, list[Expression]()
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "\n":
            line += 1
        elif token == "(":
            if len(open_) == _DEEP:
                raise UsageError(f"{name}, line {line}: more than {_DEEP} brackets inside each other are not allowed.")
            open_.append(Expression(name, line))
        elif token == ")":
            if not open_:
                raise UsageError(f"{name}, line {line}: a bracket closes that was not opened.")
            done = open_.pop()
            if open_:
                open_[-1].parts.append(done)
            else:
                yield done
        elif not token.startswith(";"):
            word = Expression(name, line, token)
            if not open_:
                raise word.refused("stands outside of brackets", "allowed are commands such as (assert (<= Y_0 Y_1))")
            open_[-1].parts.append(word)
    if open_:
        raise UsageError(f"{name}, line {open_[0].line}: the bracket that opens here is not closed.")
