"""Every public name says what it promises, and every documented example runs and is right."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.architecture.tree import ROOT, Function, Module, definitions, example, modules, public, report

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# A fence of Python, or an HTML comment `<!-- python ... -->`: code that prepares a page and that readers do not see.
BLOCK = re.compile(r"^(?:```python[^\n]*\n(.*?)^```|<!-- python\n(.*?)^-->)", re.MULTILINE | re.DOTALL)


def undocumented(module: Module) -> list[str]:
    """Every public module, class, function and method without a docstring."""
    if not public(module.name) and not module.name.endswith("__main__"):
        return []
    found = [] if ast.get_docstring(module.tree) else [f"{module.name}: the module has no docstring"]
    for name, node, _ in definitions(module.tree):
        if public(name) and not ast.get_docstring(node) and not _repeats(node):
            found.append(f"{module.name}:{node.lineno}: {name} has no docstring")
    return found


def _repeats(node: ast.ClassDef | Function) -> bool:
    marks = [ast.unparse(mark).split(".")[-1] for mark in node.decorator_list]
    return bool({"overload", "setter", "deleter"} & set(marks))


def examples(module: Module) -> list[doctest.DocTest]:
    """The examples of every docstring, private ones too, found in the text so that no decorator hides one."""
    nodes: list[tuple[str, Any]] = [("", module.tree), *((name, node) for name, node, _ in definitions(module.tree))]
    found = []
    for name, node in nodes:
        if text := ast.get_docstring(node):
            title = f"{module.name}:{name}" if name else module.name
            test = doctest.DocTestParser().get_doctest(text, {}, title, None, node.body[0].lineno - 1)
            found += [test] if test.examples else []
    return found


def run(test: doctest.DocTest, names: dict[str, Any]) -> str:
    """Run the examples of one docstring with `names` in reach; return what went wrong, or ""."""
    test.globs, said = names, []
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    return "".join(said)


def run_page(text: str, title: str) -> None:
    """Run every Python block of a page, in order, in one namespace; blocks with prompts are also checked."""
    names: dict[str, Any] = {"__name__": "__page__"}
    for match in BLOCK.finditer(text):
        code, line = match[1] or match[2], text.count("\n", 0, match.start()) + 1
        if re.search(r"^>>> ", code, re.MULTILINE):
            wrong = run(doctest.DocTestParser().get_doctest(code, names, title, title, line), names)
            assert not wrong, wrong
        else:
            exec(compile("\n" * line + code, title, "exec"), names)


EXAMPLES = [pytest.param(module, test, id=test.name) for module in modules() for test in examples(module)]


def test_a_missing_docstring_is_seen() -> None:
    assert undocumented(example("x = 1"))
    assert undocumented(example('"""M."""\ndef f(): return 1'))
    assert undocumented(example('"""M."""\nclass A:\n    "A."\n    def f(self): return 1'))
    assert (
        undocumented(
            example('"""M."""\nclass A:\n    "A."\n    def _f(self): return 1\n    def __len__(self): return 1')
        )
        == []
    )


def test_a_wrong_example_is_seen() -> None:
    (wrong,) = examples(example('def _f():\n    """Add.\n\n    >>> 1 + 1\n    3\n    """\n    return 1'))
    assert "Expected" in run(wrong, {})
    with pytest.raises(ZeroDivisionError):
        run_page("```python\nx = 0\n```\ntext\n```python\n1 / x\n```\n", "page")
    with pytest.raises(AssertionError):
        run_page("<!-- python\nx = 1\n-->\n```python\n>>> x\n2\n```\n", "page")


def test_every_public_name_is_documented() -> None:
    report([line for module in modules() for line in undocumented(module)])


def test_every_name_of_the_face_has_an_example() -> None:
    face = importlib.import_module("steepest")
    named = {name: inspect.getdoc(getattr(face, name)) or "" for name in face.__all__ if not name.startswith("__")}
    assert named
    assert [name for name, text in named.items() if ">>> " not in text] == []


@pytest.mark.parametrize(("module", "test"), EXAMPLES)
def test_examples_in_docstrings(
    module: Module, test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = run(test, {"torch": torch, **vars(importlib.import_module(module.name))})
    assert not wrong, wrong


def asks_for_a_verdict(page: Path) -> bool:
    """Whether a page's code reads what a diagnosis says: its audits must end with one."""
    return ".verdict" in "".join(match[0] for match in BLOCK.finditer(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=str(page.relative_to(ROOT)),
            marks=pytest.mark.diagnosed if asks_for_a_verdict(page) else (),
        )
        for page in PAGES
    ],
)
def test_examples_on_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), page.name)
