"""Files and functions stay small enough to be read at once, and calls short enough to be remembered."""

from __future__ import annotations

import ast

from tests.architecture.tree import Function, Module, definitions, example, modules, public, report

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
REQUIRED_PARAMETERS = 6


def too_large(module: Module) -> list[str]:
    """Every file and function over its size, and every function that demands too much."""
    lines = module.text.count("\n") + 1
    found = [f"{module.name}: {lines} lines"] if lines > LINES_OF_A_FILE else []
    for node in ast.walk(module.tree):
        if not isinstance(node, Function):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1 - lines_of_prose(node)
        if length > LINES_OF_A_FUNCTION:
            found.append(f"{module.name}:{node.lineno}: {node.name} has {length} lines")
        if required(node) > REQUIRED_PARAMETERS:
            found.append(f"{module.name}:{node.lineno}: {node.name} has {required(node)} required parameters")
    return found


def lines_of_prose(node: Function) -> int:
    """How many lines the docstring takes: a promise may be as long as it must, the code may not."""
    first = node.body[0]
    if ast.get_docstring(node) is None or not isinstance(first, ast.Expr):
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def required(node: Function) -> int:
    """How many arguments a caller must give, without self and cls."""
    given = node.args
    positional = [a.arg for a in [*given.posonlyargs, *given.args]]
    must = positional[: len(positional) - len(given.defaults)]
    return len([name for name in must if name not in ("self", "cls")]) + given.kw_defaults.count(None)


def open_ended(module: Module) -> list[str]:
    """Every public signature that swallows any keyword, so that a misspelt one goes unnoticed."""
    named = [(name, node) for name, node, _ in definitions(module.tree) if isinstance(node, Function) and public(name)]
    return [
        f"{module.name}:{node.lineno}: {name} takes **{node.args.kwarg.arg}" for name, node in named if node.args.kwarg
    ]


def test_what_is_too_large_is_seen() -> None:
    assert too_large(example("x = 1\n" * 401)) and not too_large(example("x = 1\n" * 399))
    assert too_large(example("def f():\n" + "    x = 1\n" * 60)) and not too_large(
        example("def f():\n" + "    x = 1\n" * 59)
    )
    assert not too_large(example("def f():\n    '''promise\n" + "more\n" * 60 + "    '''\n    x = 1\n"))
    assert too_large(example("class A:\n    def f(self, a, b, c, d, *, e, f, g): return 1"))
    assert not too_large(example("class A:\n    def f(self, a, b, c, d, *, e, f, g=1): return 1"))


def test_an_open_ended_signature_is_seen() -> None:
    assert open_ended(example("def f(**kwargs): return 1"))
    assert open_ended(example("class A:\n    def f(self, **rest): return 1"))
    assert not open_ended(example("def _f(**kwargs): return 1\ndef g():\n    def h(**kw): return 1\n    return h"))


def test_the_package_keeps_its_sizes() -> None:
    report([line for module in modules() for line in too_large(module)])


def test_no_public_signature_is_open_ended() -> None:
    report([line for module in modules() for line in open_ended(module)])
