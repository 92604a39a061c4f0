"""Weights & Biases, online or offline."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from torch import Tensor

from ..api import Logger
from ..errors import UserError
from ..loggers import histogram
from ..paths import RUNS, shown

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported

MODES = ("online", "offline", "disabled")


class Wandb(Logger):
    """A run of Weights & Biases, which a resumed run continues.

    `mode`: online, offline (upload later: `wandb sync RUN/wandb/offline-*`) or null, which takes
    WANDB_MODE, else online. `project`: null takes WANDB_PROJECT, else the run's `name`.
    """

    @classmethod
    def check(cls, section: Mapping[str, Any]) -> None:
        mode = section.get("mode") or os.environ.get("WANDB_MODE") or "online"
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode={mode} is not one of {', '.join(MODES)}.")
        try:
            is_ready = mode != "online" or wandb.login(prompt=False)
        except wandb.errors.Error as error:
            raise UserError(f"logger=wandb cannot log in: {error}") from error
        if not is_ready:
            raise UserError(
                "logger=wandb has no API key: call `wandb login`, or set logger.wandb.mode=offline."
            )

    def __init__(
        self,
        folder: Path,
        next_step: int,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
    ) -> None:
        stored = folder / "wandb" / "run-id"
        if not stored.exists():
            stored.parent.mkdir(exist_ok=True)
            stored.write_text(uuid.uuid4().hex[:12])
        settings: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True}
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            settings["x_transaction_log_flush_interval"] = 0.2  # seconds; a kill -9 loses no more
        name = Path(shown(folder, RUNS))
        options: dict[str, Any] = {
            "project": project or os.environ.get("WANDB_PROJECT") or "-".join(name.parent.parts),
            "entity": entity,
            "id": stored.read_text(),
            "name": str(name),
            "dir": str(folder),
            "mode": mode,
            "resume": "allow",
            "settings": wandb.Settings(**settings),
        }
        try:
            self.run = wandb.init(**options)
        except wandb.errors.Error as error:
            raise UserError(f"logger=wandb cannot begin: {error}") from error
        # A step of its own, so that values of one step may come in several calls.
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # What a killed process logged after its last checkpoint comes again, with equal values.
        self.run.log({"step": step, **values})

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        self.run.config.update(dict(config), allow_val_change=True)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self.run.log({"step": step, **{tag: wandb.Image(pixels) for tag, pixels in images.items()}})

    def histograms(self, step: int, values: Mapping[str, Tensor]) -> None:
        counted = {tag: histogram(value) for tag, value in values.items()}
        drawn = {
            tag: wandb.Histogram(np_histogram=(counts, edges))
            for tag, (_, counts, edges) in counted.items()
        }
        self.run.log({"step": step, **drawn})

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        self.run.summary.update(dict(values))
        self.run.finish()

    def close(self) -> None:
        self.run.finish(exit_code=1)  # does nothing after `finish`
