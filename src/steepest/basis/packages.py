"""Packages that can be called: `steepest.audit` is a room of the house and `st.audit(...)` its main use."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


def make_callable(package: str, home: str, name: str) -> None:
    """Let the package answer calls with the function `name` of its module `home`, imported at the first call.

    Importing any part of a package sets the package as an attribute of its parent; without this, `st.audit(...)`
    would work or not depending on what was imported before.
    """

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return _function()(*args, **kwargs)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(_function())

    def _function() -> Any:
        return getattr(importlib.import_module(home), name)

    sys.modules[package].__class__ = Callable
