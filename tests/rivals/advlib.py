"""adv-lib, opened without what it imports for pictures and for a distance that no attack here uses."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import MagicMock

import pytest

UNUSED = ("torchvision", "torchvision.models", "visdom")


def attacks() -> ModuleType:
    """The module `adv_lib.attacks`; the test skips where the library is not installed."""
    if find_spec("adv_lib") is None:
        pytest.skip("adv-lib is not installed")
    absent = [name for name in UNUSED if name not in sys.modules and find_spec(name.partition(".")[0]) is None]
    # Stand-ins for the time of the import only, so that nobody else takes the real ones for installed.
    sys.modules.update({name: MagicMock() for name in absent})
    try:
        return importlib.import_module("adv_lib.attacks")
    finally:
        for name in absent:
            del sys.modules[name]
