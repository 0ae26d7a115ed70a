"""Numbers of a training for MLflow: the server, experiment and keys are those of its own environment variables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient


@final
class MLflow:
    """A `Tracker` that tells MLflow; a training that goes on goes on in the same run."""

    def __init__(self, folder: Path) -> None:
        self._client, self._note, self._run = MlflowClient(), folder / "mlflow-run.txt", ""

    def begin(self, name: str, asked: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        if self._note.exists():
            self._run = self._note.read_text(encoding="utf-8").strip()
            self._client.update_run(self._run, status="RUNNING")
            return
        wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self._client.get_experiment_by_name(wanted)
        experiment = found.experiment_id if found else self._client.create_experiment(wanted)
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        self._note.write_text(self._run, encoding="utf-8")
        self._client.log_batch(self._run, params=[Param(key, value[:500]) for key, value in asked.items()])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(key, value, now, step) for key, value in numbers.items()])

    def end(self) -> None:
        """See `Tracker.end`."""
        self._client.set_terminated(self._run)
