"""Weights & Biases, online or offline."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from ..api import Logger
from ..errors import UserError
from ..paths import RUNS, shown


class Wandb(Logger):
    """A run of Weights & Biases. A resumed run goes on in the same one.

    `mode`: online, offline (upload later: `wandb sync RUN/wandb/offline-*`) or null, which takes
    WANDB_MODE, else online. `project`: null takes WANDB_PROJECT, else the run's `name`.
    """

    @classmethod
    def check(cls, section: Mapping[str, Any]) -> None:
        mode = section.get("mode") or os.environ.get("WANDB_MODE") or "online"
        if mode not in ("online", "offline", "disabled"):
            raise UserError(f"logger.wandb.mode={mode} is not one of online, offline, disabled.")
        try:
            if mode == "online" and not wandb.login(prompt=False):
                raise UserError(
                    "logger=wandb has no API key. Call `wandb login` or set "
                    "logger.wandb.mode=offline."
                )
        except wandb.errors.Error as error:
            raise UserError(f"logger=wandb cannot log in: {error}") from error

    def __init__(
        self,
        folder: Path,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
    ) -> None:
        stored = folder / "wandb/run-id"
        if not stored.exists():
            stored.parent.mkdir(exist_ok=True)
            stored.write_text(uuid.uuid4().hex[:12])
        name = Path(shown(folder, RUNS))
        settings: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True}
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            settings["x_transaction_log_flush_interval"] = 0.2  # a kill -9 loses so many seconds
        try:
            self.run = wandb.init(
                project=project or os.environ.get("WANDB_PROJECT") or "-".join(name.parent.parts),
                entity=entity,
                id=stored.read_text(),
                name=str(name),
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                resume="allow",
                settings=settings,
            )
        except wandb.errors.Error as error:
            raise UserError(f"logger=wandb cannot begin: {error}") from error
        # The values of one step come in several calls, so `step` is a value of its own.
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def begin(self, step: int, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        self.run.config.update(dict(config), allow_val_change=True)
        self.run.tags = tuple({*(self.run.tags or ()), *config["tags"]})

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self.run.log({"step": step, **{tag: wandb.Image(pixels) for tag, pixels in images.items()}})

    def finish(self, step: int, values: Mapping[str, float]) -> None:
        self.run.summary.update(dict(values))
        self.run.finish()

    def close(self) -> None:
        self.run.finish(exit_code=1)  # does nothing after `finish`
