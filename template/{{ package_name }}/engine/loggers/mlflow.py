"""MLflow, with its local store or a server."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ..api import Logger
from ..errors import UserError
from ..loggers import hyperparameters
from ..paths import RUNS, shown, write_json

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

STORE = f"sqlite:///{RUNS}/mlflow.db"

for _name in ("mlflow", "alembic"):  # a new store would be told of in ten lines
    logging.getLogger(_name).setLevel(logging.WARNING)


class MLflow(Logger):
    """A run of MLflow, which a resumed run continues.

    `tracking_uri`: a server or a store; null takes MLFLOW_TRACKING_URI, else runs/mlflow.db, shown
    by `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`. `experiment`: null takes the run's
    `name`.
    """

    @classmethod
    def check(cls, section: Mapping[str, Any]) -> None:
        uri = section.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
        try:
            RUNS.mkdir(exist_ok=True)
            MlflowClient(uri or STORE).search_experiments(max_results=1)
        except ImportError as error:
            raise UserError(
                f"logger=mlflow needs the package '{error.name}' for this store: uv add mlflow"
            ) from error
        except (MlflowException, OSError) as error:
            raise UserError(f"logger=mlflow cannot use {uri or STORE}: {error}") from error

    def __init__(
        self,
        folder: Path,
        next_step: int,
        tracking_uri: str | None = None,
        experiment: str | None = None,
    ) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or STORE
        files = (RUNS / ".mlflow").as_uri() if uri.startswith("sqlite:") else None
        self.progress = Progress(folder / "mlflow.json")
        self.is_finished = False
        try:
            self.client = MlflowClient(uri)
            if not self._continues():
                name = experiment or shown(folder.parent, RUNS)
                found = self.client.get_experiment_by_name(name)
                number = (
                    found.experiment_id if found else self.client.create_experiment(name, files)
                )
                created = self.client.create_run(number, run_name=folder.name)
                self.progress.begin(created.info.run_id)
        except (MlflowException, ImportError) as error:
            raise UserError(f"logger=mlflow cannot begin: {error}") from error

    @property
    def run_id(self) -> str:
        """MLflow's name of the run."""
        assert self.progress.run_id is not None
        return self.progress.run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self.progress.is_new(step, values):
            self._log(step, values)
            self.progress.logged(step, values)

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        if self.client.get_run(self.run_id).data.params:  # begun before the run was resumed
            return
        params = [Param(key, str(value)[:6000]) for key, value in hyperparameters(config).items()]
        for start in range(0, len(params), 100):  # at most so many at once
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        self.client.log_dict(self.run_id, dict(config), "config.yaml")
        self.client.log_dict(self.run_id, dict(manifest), "manifest.json")

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for tag, pixels in images.items():
            self.client.log_image(self.run_id, pixels, f"{tag}/step-{step:08}.png")

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, values)
        self.client.set_terminated(self.run_id, "FINISHED")
        self.is_finished = True

    def close(self) -> None:
        if not self.is_finished:  # stopped, or failed: what resumes it sets it to running again
            self.client.set_terminated(self.run_id, "KILLED")

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, step) for tag, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _continues(self) -> bool:
        """Whether the store has the run that was begun in this folder; it then goes on."""
        if self.progress.run_id is None:
            return False
        try:
            self.client.update_run(self.progress.run_id, status="RUNNING")
        except MlflowException:  # another store than before
            return False
        return True


class Progress:
    """How far a sink has come that cannot take anything back; kept in the run folder.

    What a resumed run logs again is what the sink has got already, bit for bit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id: str | None = None
        self.last = (-1, False)
        """Step, and whether its validation too."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.run_id, self.last = stored["run_id"], (stored["step"], stored["validated"])
        except (OSError, ValueError, KeyError, TypeError):  # a new run, or somebody edited it
            return

    def begin(self, run_id: str) -> None:
        """A new run of the sink, which has got nothing yet."""
        self.run_id, self.last = run_id, (-1, False)
        self._save()

    def is_new(self, step: int, values: Mapping[str, float]) -> bool:
        """Whether these values were not logged before."""
        return (step, _validates(values)) > self.last

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        self.last = (step, _validates(values))
        self._save()

    def _save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        step, validated = self.last
        write_json(self.path, {"run_id": self.run_id, "step": step, "validated": validated})


def _validates(values: Mapping[str, float]) -> bool:
    return any(tag.startswith("val/") for tag in values)
