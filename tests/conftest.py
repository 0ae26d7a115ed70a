"""What every test starts from: types checked while they run, one thread, the same random cases each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from beartype import BeartypeConf, FrozenDict
from beartype.claw import beartype_package

_contract: Any = type(Protocol)
_born = _contract.__init__


def _checkable(cls: Any, *args: Any, **keywords: Any) -> None:
    """Let beartype ask whether an object keeps one of our contracts; in use nobody asks, so they need not say so."""
    _born(cls, *args, **keywords)
    if cls.__module__.startswith("steepest.") and cls.__dict__.get("_is_protocol"):
        runtime_checkable(cls)


_contract.__init__ = _checkable
# beartype wants a dtype in the second place; type checkers are content with Any.
_arrays = FrozenDict({np.ndarray[Any, Any]: np.ndarray})
# Before anything imports the package; an int is a float here, as type checkers have it.
beartype_package("steepest", conf=BeartypeConf(is_pep484_tower=True, hint_overrides=_arrays))

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=25, derandomize=True, **_common)
settings.register_profile("full", max_examples=200, derandomize=True, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data beside the repository; the test skips where it is missing."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data is not here")
    return folder


@pytest.fixture(autouse=True)
def _undiagnosed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits end with a diagnosis, which would take longer than all that most tests are about; `diagnosed` ones ask."""
    if request.node.get_closest_marker("diagnosed") is None:
        monkeypatch.setattr("steepest.audit.api.judge", lambda folder, job, progress: None)
