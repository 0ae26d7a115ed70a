"""The certifiers, one file each; every file in this folder enters its certifier into the catalogue by being here."""

from __future__ import annotations

import importlib
import pkgutil

from steepest.certify.catalogue import CERTIFIERS as CERTIFIERS

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
