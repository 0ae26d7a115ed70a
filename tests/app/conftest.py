"""The folder in which a newcomer stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.app.material import furnish


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory with net.py and data.npz, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("STEEPEST_"):
            monkeypatch.delenv(name)
    return furnish(tmp_path)
