"""The training methods, one file each; every file in this folder enters its method into the catalogue by being here."""

from __future__ import annotations

import importlib
import pkgutil

from steepest.harden.catalogue import METHODS as METHODS

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
