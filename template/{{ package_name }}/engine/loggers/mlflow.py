"""MLflow, with its local store or a server."""

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

STORE = f"sqlite:///{RUNS}/mlflow.db"

for _name in ("mlflow", "alembic"):  # they announce a new store in ten lines
    logging.getLogger(_name).setLevel(logging.WARNING)


class MLflow(Logger):
    """A run of MLflow. A resumed run goes on in the same one.

    `tracking_uri`: a server or a store; null takes MLFLOW_TRACKING_URI, else runs/mlflow.db, shown
    by `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`. `experiment`: null takes the run's
    `name`.
    """

    @classmethod
    def check(cls, section: Mapping[str, Any]) -> None:
        uri = section.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or STORE
        try:
            RUNS.mkdir(exist_ok=True)
            MlflowClient(uri).search_experiments(max_results=1)
        except (MlflowException, ImportError, OSError) as error:
            raise UserError(f"logger=mlflow cannot use {uri}: {error}") from error

    def __init__(
        self, folder: Path, tracking_uri: str | None = None, experiment: str | None = None
    ) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or STORE
        files = (RUNS / ".mlflow").as_uri() if uri.startswith("sqlite:") else None
        self.ended = "KILLED"  # unless `finish` is called
        place = folder / "mlflow.json"
        try:
            self.client = client = MlflowClient(uri)
            if place.exists():
                self.run_id: str = json.loads(place.read_text())["run_id"]
                client.update_run(self.run_id, status="RUNNING")
            else:
                name = experiment or shown(folder.parent, RUNS)
                found = client.get_experiment_by_name(name)
                number = found.experiment_id if found else client.create_experiment(name, files)
                self.run_id = client.create_run(number, run_name=folder.name).info.run_id
                write_json(place, {"run_id": self.run_id})
            tags = client.get_run(self.run_id).data.metrics
            history = {tag: client.get_metric_history(self.run_id, tag) for tag in tags}
        except (MlflowException, OSError, ValueError) as error:
            raise UserError(f"logger=mlflow cannot begin at {uri}: {error}") from error
        self.logged = {tag: max(metric.step for metric in own) for tag, own in history.items()}
        """The last step of each tag: MLflow cannot drop what a killed process has logged."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        new = {tag: value for tag, value in values.items() if step > self.logged.get(tag, -1)}
        metrics = [Metric(tag, value, now, step) for tag, value in new.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        if config["tags"]:  # MLflow takes few signs in the name of a tag, but any in its value
            self.client.set_tag(self.run_id, "tags", ", ".join(config["tags"]))
        if self.client.get_run(self.run_id).data.params:  # the run began before it was resumed
            return
        params = [Param(key, str(value)[:6000]) for key, value in hyperparameters(config).items()]
        for start in range(0, len(params), 100):  # MLflow takes no more at once
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        self.client.log_dict(self.run_id, dict(config), "config.yaml")

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for tag, pixels in images.items():
            self.client.log_image(self.run_id, pixels, f"{tag}/step-{step:08}.png")

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        self.scalars(step, values)
        self.ended = "FINISHED"

    def close(self) -> None:
        self.client.set_terminated(self.run_id, self.ended)
