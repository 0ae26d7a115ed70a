"""The catalogue: named, documented factories, and the one reader of texts such as `pgd(steps=20)`."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from steepest.basis.errors import UsageError, unknown

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[T]):
    """One line of a catalogue: the name, what makes it, and the facts that a table shows."""

    name: str
    factory: Callable[..., T]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first sentence of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def parameters(self) -> dict[str, Any]:
        """The factory's parameters with their defaults; a required one maps to `...`."""
        found = inspect.signature(self.factory).parameters.values()
        return {p.name: ... if p.default is p.empty else p.default for p in found}

    @property
    def signature(self) -> str:
        """The call with its defaults, e.g. `pgd(steps=20, restarts=1)`."""
        inner = (name if value is ... else f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{self.name}({', '.join(inner)})"


class Catalogue(Generic[T]):
    """Factories of one kind, found by their names in the field.

    >>> colours = Catalogue("colour")
    >>> @colours.add("grey", {"source": "nature"})
    ... def grey(level=0.5):
    ...     "A shade."
    ...     return ("grey", level)
    >>> colours.build("grey(level=0.1)")
    ('grey', 0.1)
    """

    def __init__(self, kind: str, *, by_name: bool = False) -> None:
        self.kind = kind
        self._by_name = by_name
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, facts: Mapping[str, str]) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Return a decorator that catalogues a factory under `name` with the facts that tables show.

        Raises:
            UsageError: the name is taken.
        """
        if name in self._entries:
            raise UsageError(f"the {self.kind} {name!r} is catalogued already: choose another name.")

        def enter(factory: Callable[..., T]) -> Callable[..., T]:
            self._entries[name] = Entry(name=name, factory=factory, facts=dict(facts))
            return factory

        return enter

    def __iter__(self) -> Iterator[Entry[T]]:
        return map(self._entries.__getitem__, self.names())

    def names(self) -> list[str]:
        """Return all names, in the order of entry, or of the alphabet in a catalogue that is kept `by_name`."""
        return sorted(self._entries) if self._by_name else list(self._entries)

    def entry(self, name: str) -> Entry[T]:
        """Return the entry called `name`.

        Raises:
            UsageError: no such name; near matches are offered.
        """
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries, f"See `steepest list {self.kind}s`.")
        return self._entries[name]

    def build(self, text: str) -> T:
        """Return what `text` asks for: a name, or a name with keyword arguments (`pgd(steps=20)`).

        Raises:
            UsageError: the text is not of that form, or the name or a parameter is unknown.
        """
        name, arguments = parse_call(text)
        entry = self.entry(name)
        for key in arguments:
            if key not in entry.parameters:
                raise unknown(f"parameter of {name}", key, entry.parameters, f"The whole call is {entry.signature}.")
        return entry.factory(**arguments)


def call_text(name: str, factory: Callable[..., T], remember: Callable[[T, str], T]) -> Callable[..., T]:
    """Return `factory` so that what it makes remembers the full call: `pgd(steps=20, step=None, restarts=1)`."""
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def remembering(*args: Any, **kwargs: Any) -> T:
        bound = signature.bind(*args, **kwargs)
        for key, value in bound.arguments.items():
            _require_kind(name, signature.parameters[key], value)
        bound.apply_defaults()
        inner = ", ".join(f"{key}={value!r}" for key, value in bound.arguments.items())
        return remember(factory(*args, **kwargs), f"{name}({inner})")

    return remembering


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text"),
    "bool": ((bool,), "True or False"),
    "None": ((type(None),), "None"),
}


def _require_kind(name: str, parameter: inspect.Parameter, value: object) -> None:
    """Refuse an argument of another kind than its annotation names; annotations of other forms say nothing.

    Raises:
        UsageError: names the call, the parameter, the value and what is allowed.
    """
    hint = parameter.annotation
    text = hint.__name__ if isinstance(hint, type) else str(hint)
    wanted = [_KINDS.get(part.strip()) for part in text.split("|")]
    known = [kind for kind in wanted if kind is not None]
    if len(known) < len(wanted):
        return
    # True is an int to Python, and never meant as one.
    if any(isinstance(value, types) and (bool in types or not isinstance(value, bool)) for types, _ in known):
        return
    allowed = " or ".join(words for _, words in known)
    raise UsageError(f"{name}: {parameter.name}={value!r} is not allowed; give {allowed}.")


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name(key=value, ...)` into its name and its literal arguments; fractions such as 8/255 are read.

    >>> parse_call("pgd(steps=20, step=1/30)")
    ('pgd', {'steps': 20, 'step': 0.03333333333333333})
    """
    name, paren, rest = text.strip().partition("(")
    if not paren:
        return name.strip(), {}
    refused = UsageError(
        f"cannot read {text!r}: write a name, or a name with keyword arguments, e.g. 'pgd(steps=20, step=1/30)'."
    )
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise refused
        named = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        raise refused from None
    if None in named:
        raise refused
    return name.strip(), {str(key): value for key, value in named.items()}


def parse_number(text: str) -> float:
    """Read a number, a fraction, or an infinity: `0.1`, `8/255`, `-inf`.

    >>> parse_number("8/255") == 8 / 255
    True
    """
    if text.strip() in ("inf", "-inf"):
        return float(text)
    try:
        value = _literal(ast.parse(text.strip(), mode="eval").body)
        return float(value)
    except (SyntaxError, ValueError, TypeError):
        raise UsageError(f"{text!r} is not a number: write one such as 0.1, or a fraction such as 8/255.") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        try:
            return _literal(node.left) / _literal(node.right)
        except (TypeError, ZeroDivisionError):
            raise ValueError("not a fraction of numbers") from None
    return ast.literal_eval(node)
