"""Imports only go down: a room may use the rooms below it, never one above or beside it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.tree import SOURCE, Module, example, modules, report

LEVELS = {
    "basis": 0,
    "budgets": 1,
    "models": 2,
    "attacks": 3,
    "certify": 3,
    "landscape": 3,
    "diagnose": 4,
    "harden": 4,
    "audit": 5,
    "report": 6,
    "app": 7,
}


def imported(module: Module, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of everything that is imported, also inside functions and by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    own = module.name.split(".") + (["__init__"] if module.package else [])
    return ".".join([*own[: -node.level], *([node.module] if node.module else [])])


def steps_up(module: Module) -> list[str]:
    """Every import of `module` that does not go down the staircase."""
    if not module.room:
        return [] if module.name in ("steepest", "steepest.__main__") else [f"{module.name}: belongs to no room"]
    if module.room not in LEVELS:
        return [f"{module.name}: {module.room} is no room of the house; known: {', '.join(LEVELS)}"]
    found = []
    for line, name in imported(module, module.tree):
        parts = name.split(".")
        if parts[0] != "steepest" or parts[1:2] == [module.room] or name == "steepest.__version__":
            continue
        target = parts[1] if len(parts) > 1 else ""
        if target not in LEVELS and module.room == "app":
            continue
        if LEVELS.get(target, 99) >= LEVELS[module.room]:
            found.append(f"{module.name}:{line}: {module.room} imports {name}")
    return found


def eager(module: Module) -> list[str]:
    """Every import of ours or of torch that runs when `module` itself is imported."""
    found = []
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) or _for_types_only(node):
            continue
        names = [(line, name) for line, name in imported(module, node) if name.split(".")[0] in ("steepest", "torch")]
        found += [f"{module.name}:{line}: {name} is imported at once" for line, name in names]
    return found


def _for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


@pytest.mark.parametrize(
    "text",
    [
        "from steepest.audit.plan import Plan",
        "import steepest.report",
        "from steepest import harden",
        "from steepest.certify import linear",
        "from steepest.nowhere import x",
        "import steepest",
        "from ..app import cli",
        "def late():\n    from steepest.app import cli",
        "import importlib\nimportlib.import_module('steepest.app.cli')",
    ],
)
def test_a_step_up_or_sideways_is_seen(text: str) -> None:
    assert steps_up(example(text))


def test_steps_down_are_allowed() -> None:
    text = (
        "import torch\nfrom steepest.models.model import Model\nfrom steepest.attacks import loop\nfrom . import loop"
    )
    assert steps_up(example(text)) == []
    assert steps_up(example("from steepest.basis import box\nx = 1", "steepest.nowhere.example"))
    assert steps_up(example("x = 1", "steepest.loose"))


def test_an_eager_face_is_seen() -> None:
    assert eager(example("from steepest.models.model import Model", "steepest"))
    assert eager(example("if True:\n    import torch", "steepest"))
    lazy = "if TYPE_CHECKING:\n    from steepest.budgets.linf import Linf\ndef __getattr__(name):\n    import torch"
    assert eager(example(lazy, "steepest")) == []


def test_imports_only_go_down() -> None:
    report([line for module in modules() for line in steps_up(module)])


def test_the_face_imports_nothing_until_it_is_used() -> None:
    report([line for module in modules() if module.name == "steepest" for line in eager(module)])
    command = "import steepest, sys; print(*sorted({'torch', 'numpy', 'scipy', 'onnx'} & set(sys.modules)))"
    asked = subprocess.run([sys.executable, "-c", command], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == ""
