"""Searching a `.pt2` archive for code before torch reads it.

Forbidding pickles is not enough: torch evaluates the size expressions and guards of an exported program as Python,
pastes the names in it into generated source, and links compiled libraries that the archive carries. So only plain
arithmetic, plain names and no libraries are let through.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[\w.+:\-]*")
_WORD = re.compile(r"[\w.\-]*")
_SAFE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_LIBRARIES = (".so", ".dll", ".dylib", ".pyd", ".o", ".cpp", ".cubin", ".py", ".pyc")
_CALLS = frozenset(
    """Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs Eq Ne Lt Le Gt Ge And Or Not floor ceiling
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural
    FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt
    RoundDecimal ToFloat Identity Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan
    max min abs int float round""".split()
)
_ATTRIBUTES = frozenset(
    "size stride storage_offset trunc floor ceil sqrt pow sym_float sym_int sym_max sym_min sym_not sym_ite".split()
)
_PARTS = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.keyword),
    *(ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def suspicion(path: Path) -> str | None:
    """Return what in the archive could run code, in words, or None if nothing was found.

    Raises:
        zipfile.BadZipFile: the file is no archive, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name.lower() for name in archive.namelist()]
        if len(set(names)) != len(names):
            return "two members of one name"
        for member in archive.namelist():
            lower = member.lower()
            if "/aotinductor/" in lower or lower.endswith(_LIBRARIES):
                return f"a compiled library ({member})"
            if "/custom_obj" in lower:
                return f"an object that only its own code can read ({member})"
            if lower.endswith(".json") and "/extra/" not in lower:
                for found in _not_plain(json.loads(archive.read(member)), ""):
                    return f"code where a name or a size belongs ({found[:80]!r} in {member})"
    return None


def is_arithmetic(text: str) -> bool:
    """Return whether a Python expression only computes with sizes: no call, attribute or text beyond those known.

    >>> is_arithmetic("Mul(Integer(2), Symbol('s7', positive=True))"), is_arithmetic("__import__('os')")
    (True, False)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_plain(node) for node in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str | bytes) or _WORD.fullmatch(str(node.value)) is not None
    if isinstance(node, ast.Name):
        return "__" not in node.id
    if isinstance(node, ast.Attribute):
        return node.attr in _ATTRIBUTES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) or (isinstance(node.func, ast.Name) and node.func.id in _CALLS)
    return isinstance(node, _PARTS)


def _not_plain(item: Any, key: str) -> Iterator[str]:
    """Yield the texts that torch would turn into code; free text is allowed only where torch quotes it."""
    if isinstance(item, dict):
        for name, value in item.items():
            if not _NAME.fullmatch(name):
                yield name
            if name != "metadata":
                yield from _not_plain(value, name)
    elif isinstance(item, list):
        for value in item:
            yield from _not_plain(value, key)
    elif isinstance(item, str):
        if key in ("in_spec", "out_spec"):
            well = not item or all(kind in _SAFE_TYPES for kind in _types(json.loads(item)))
        elif key in ("expr_str", "guards_code"):
            well = is_arithmetic(item)
        else:
            well = key in ("as_string", "as_strings") or _NAME.fullmatch(item) is not None
        if not well:
            yield item


def _types(spec: Any) -> Iterator[str | None]:
    if isinstance(spec, dict):
        if "type" in spec:
            yield spec["type"] if isinstance(spec["type"], str) else None
        for value in spec.values():
            yield from _types(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _types(value)
