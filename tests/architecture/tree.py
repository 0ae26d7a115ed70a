"""The source as the rules read it: every module's name, path and text."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One file: its dotted name (`steepest.budgets` for the package's `__init__`), and its text."""

    name: str
    text: str
    package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The package below `steepest`, or "" for the files of `steepest` itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or (self.package and len(parts) == 2) else ""


def example(text: str, name: str = "steepest.attacks.example") -> Module:
    """A module that exists in a test only."""
    return Module(name=name, text=text)


def modules() -> list[Module]:
    """Every module of the package, by name."""
    return [_module(path) for path in sorted((SOURCE / "steepest").rglob("*.py"))]


def _module(path: Path) -> Module:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if package else parts)
    return Module(name=name, text=path.read_text(encoding="utf-8"), package=package)


def report(found: list[str]) -> None:
    """Fail with one line for each thing found."""
    assert not found, "\n" + "\n".join(found)


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | Function, ast.ClassDef | None]]:
    """Yield (dotted name, definition, class around it) of all classes and functions that are not inside a function."""
    yield from _inside(tree.body, "", None)


def _inside(
    body: list[ast.stmt], prefix: str, owner: ast.ClassDef | None
) -> Iterator[tuple[str, ast.ClassDef | Function, ast.ClassDef | None]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node, owner
            yield from _inside(node.body, f"{prefix}{node.name}.", node)
        elif isinstance(node, Function):
            yield prefix + node.name, node, owner
        elif isinstance(node, ast.If | ast.Try):
            yield from _inside([*node.body, *node.orelse], prefix, owner)


def public(dotted: str) -> bool:
    """Whether no part of a dotted name is private; dunder names speak through their class."""
    return not any(part.startswith("_") for part in dotted.split("."))


def protocol(owner: ast.ClassDef | None) -> bool:
    """Whether a class is a contract."""
    return owner is not None and any("Protocol" in ast.unparse(base) for base in owner.bases)


def repository_files() -> list[Path]:
    """The files that belong to the repository: tracked or not ignored; without git, all but the generated ones."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        generated = {"build", "dist", "runs", "demo-runs", "__pycache__", ".venv", ".git"}
        found = [p for p in ROOT.rglob("*") if not generated & set(p.relative_to(ROOT).parts) and "cache" not in str(p)]
    return sorted(path for path in found if path.is_file())
