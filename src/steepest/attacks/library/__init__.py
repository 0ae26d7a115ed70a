"""The attacks, one file each; every file in this folder enters its attack into the catalogue by being here."""

from __future__ import annotations

import importlib
import pkgutil

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
