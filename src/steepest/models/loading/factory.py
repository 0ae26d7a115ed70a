"""The user's own code: `pkg.module:factory` or `file.py:factory`, with weights from a file or without."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from steepest.basis.errors import ModelError, UsageError, unknown
from steepest.models.contract import Facts
from steepest.models.inspection import fingerprint
from steepest.models.loading.adapt import settled
from steepest.models.loading.files import require_file, sha256_of
from steepest.models.loading.weights import load_into
from steepest.models.model import Network

_FORM = re.compile(r"(?P<module>[^:]*[^:/\\]\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<factory>[A-Za-z_]\w*)", re.DOTALL)


def names_factory(source: str) -> bool:
    """Return whether `source` has the form `pkg.module:factory` or `file.py:factory`.

    >>> names_factory("nets/small.py:build"), names_factory("net.onnx")
    (True, False)
    """
    return _FORM.fullmatch(source) is not None


def from_factory(
    source: str, *, weights: Path | None, trust_code: bool, input_shape: tuple[int, ...] | None
) -> tuple[Network, Facts]:
    """Return what the user's factory builds, its weights loaded, in evaluation mode.

    Only code inside the working directory runs unasked; elsewhere `trust_code` is needed, and checked before
    anything is imported.

    Raises:
        UsageError: no such module or factory, or code elsewhere without `trust_code`.
        ModelError: the code fails, wants arguments, builds no network, or the weights do not fit.
    """
    found = _FORM.fullmatch(source)
    if found is None:
        raise UsageError(f"{source!r} does not name a factory; write pkg.module:factory or file.py:factory.")
    location, name = found["module"], found["factory"]
    module = _module(location, source, trust_code)
    network = _built(_factory(module, name, location), source)
    notes: tuple[str, ...] = ()
    if weights is not None:
        if not isinstance(network, nn.Module):
            raise ModelError(
                f"{source!r} built a {type(network).__name__}, which holds no weights; let the factory return a "
                "torch.nn.Module, or leave --weights out."
            )
        notes = (f"weights from {weights}", *load_into(network, weights, trust_code=trust_code))
    network = settled(network)
    sha256 = fingerprint(network) if weights is None else sha256_of([weights])
    return network, Facts(source=source, sha256=sha256, kind="factory", input_shape=input_shape, notes=notes)


def _module(location: str, source: str, trust_code: bool) -> ModuleType:
    if location.endswith(".py"):
        path = require_file(Path(location)).resolve()
        _require_trust([path], source, trust_code)
        spec = importlib.util.spec_from_file_location(f"steepest_user_{path.stem}", path)
        folder = path.parent
    else:
        specs = list(_specs(location))
        if not specs:
            raise UsageError(
                f"there is no module {location!r} (asked for by {source!r}). Run from the folder that holds it, "
                "install it, or name its file: path/to/file.py:factory."
            )
        _require_trust([Path(s.origin) if s.origin else None for s in specs], source, trust_code)
        spec, folder = None, Path.cwd()
    with _first_on_path(folder):
        try:
            return importlib.import_module(location) if spec is None else _executed(spec)
        except Exception as error:  # the user's code may raise anything
            raise ModelError(f"importing {location!r} failed: {type(error).__name__}: {error}.") from error


def _specs(dotted: str) -> Iterator[ModuleSpec]:
    """Yield the specs of a module and its parents without running any of them; nothing if one is missing."""
    found: list[ModuleSpec] = []
    path: list[str] = [str(Path.cwd()), *sys.path]
    parts = dotted.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = PathFinder.find_spec(name, path)
        if spec is None and depth == 1:
            spec = importlib.util.find_spec(name)  # editable installs have finders of their own
        if spec is None:
            return
        found.append(spec)
        path = list(spec.submodule_search_locations or [])
    yield from found


def _require_trust(files: list[Path | None], source: str, trust_code: bool) -> None:
    """A namespace package has no file and runs nothing, except that its last part must be a real module."""
    here = Path.cwd().resolve()
    outside = [f for f in files if f is not None and not f.resolve().is_relative_to(here)]
    if outside and not trust_code:
        raise UsageError(
            f"{source!r} would run code outside the working directory: {outside[0]}. If you trust it, add "
            "--trust-code (trust_code=True); code inside the working directory needs no flag."
        )


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Let the user's module import its neighbours, as a script could."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _executed(spec: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _factory(module: ModuleType, name: str, location: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise unknown(f"factory in {location}", name, public, "A factory is a function or class without arguments.")


def _built(factory: Callable[..., Any], source: str) -> Network:
    if isinstance(factory, nn.Module):
        return factory
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built-in callables may not tell
        parameters = {}.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if required:
        raise ModelError(
            f"the factory {source!r} wants the argument(s) {', '.join(required)}; it is called without any. Write a "
            "small factory that fills them in."
        )
    try:
        network = factory()
    except Exception as error:
        raise ModelError(f"the factory {source!r} failed: {type(error).__name__}: {error}.") from error
    if not callable(network):
        raise ModelError(
            f"the factory {source!r} returned a {type(network).__name__}; allowed is a torch.nn.Module or a callable "
            "from x [N, ...] to logits [N, K]."
        )
    return network  # type: ignore[no-any-return]
