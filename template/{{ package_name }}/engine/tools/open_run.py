"""A run folder as a model to use: config, data, weights and task."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import rng
from ..api import Context, Data
from ..build.kept import modules_beside
from ..build.parts import Built
from ..config.schema import Config
from ..config.stored import allowed_by_project, read_config
from ..machine.device import autocast, choose_device
from ..paths import ROOT
from ..run.resume import find_weights
from ..setup import build_model
from .chosen import one_run


@dataclass(frozen=True)
class Opened:
    """A run with the weights of one of its checkpoints."""

    folder: Path
    checkpoint: Path
    built: Built
    step: int
    epoch: int
    averaged: bool  # whether the weights are the moving average of the trained ones
    fingerprint: str  # of the data that it was trained on

    def predict_batch(self, batch: Any, ctx: Context, done: int) -> list[dict[str, Any]]:
        """Return the task's rows for a batch on the device; `done` samples came before it."""
        key = rng.make_key(self.built.config.seed, rng.Domain.PREDICTION)
        rng.seed_all(rng.fold_in(key, done))
        with autocast(self.built.precision, self.built.device):
            return self.built.task.predict_step(self.built.model, batch, ctx)

    def describe(self) -> dict[str, Any]:
        """Say where the weights are from, for the head of a file."""
        return {
            "run": f"{self.built.config.name}/{self.folder.name}",
            "checkpoint": self.checkpoint.name,
            "step": self.step,
            "epoch": self.epoch,
            "weights": "ema" if self.averaged else "model",
        }


def open_run(folder: Path, which: str = "best", **replaced: Any) -> Opened:
    """Build what the run's config says and load its weights: the averaged ones if there are any.

    which: "best", "last" or a checkpoint's path. replaced: config values. Raises `UserError`.
    """
    config = replace(read_config(folder), **replaced)
    path, state = find_weights(folder, which)
    if config.precision in ("tf32", "fp16") and choose_device(config.device).type == "cpu":
        config = replace(config, precision="fp32")
    built = build_model(config, state.get("info") or None)
    built.load_built(state, averaged=True)
    built.model.requires_grad_(False)
    for module in (built.model, *modules_beside(built)):
        module.eval()
    facts = state["step"], state["epoch"], state["ema"] is not None, state["fingerprint"]["data"]
    return Opened(folder, path, built, *facts)


def load_run(
    run: str | Path | None = None, checkpoint: str = "best", **replaced: Any
) -> tuple[nn.Module, Data, Config]:
    """Return the trained model in eval mode, the data and the config of a run. Raises `UserError`.

    run: a run folder, or `runs/NAME` for its best run; None: the newest. checkpoint: "best", "last"
    or a path. replaced: config values, such as device="cpu". The project's root becomes the working
    directory, because relative paths of runs and configs start there.
    """
    os.chdir(ROOT)
    folder = one_run(None if run is None else ROOT / Path(run).expanduser())
    replaced = {"allowed_packages": allowed_by_project(), **replaced}
    built = open_run(folder, checkpoint, **replaced).built
    return built.model, built.data, built.config
