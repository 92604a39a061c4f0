"""A run folder as a model to use: config, data, weights and task."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import rng
from ..api import Context
from ..build.parts import Built
from ..config.stored import read_config
from ..errors import UserError
from ..machine.device import autocast, choose_device
from ..paths import shown
from ..run import checkpoint
from ..run.checkpoint import BEST, Unusable
from ..run.resume import first_usable
from ..setup import build_model
from ..text import say


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
    averaged = state["ema"] is not None
    built.load_built({**state, "model": state["ema"] if averaged else state["model"]})
    built.model.eval().requires_grad_(False)
    fingerprint = state["fingerprint"]["data"]
    return Opened(folder, path, built, state["step"], state["epoch"], averaged, fingerprint)


def find_weights(folder: Path, which: str) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint `which`, or the next newest that can be used. Raises `UserError`."""
    checkpoints = folder / "checkpoints"
    numbered, best = checkpoint.newest_first(checkpoints), list(checkpoints.glob(BEST))
    known = {"best": [*best, *numbered], "last": [*numbered, *best]}
    files = (path for path in (Path(which), checkpoints / which) if os.path.isfile(path))
    paths = known[which] if which in known else list(files)[:1]
    if not paths:
        names = ", ".join(path.name for path in (*best, *numbered))
        advice = f"Name one of {names}." if names else "Train until the run has saved one."
        raise UserError(f"There is no checkpoint '{which}' in {shown(folder)}. {advice}")
    if which == "best" and not best:
        say(f"The run has no {BEST} because it was not validated yet. {paths[0].name} is used.")
    errors: list[Unusable] = []
    found = first_usable(paths, errors.append)
    reasons = "; ".join(map(str, errors))
    if found is None:
        raise UserError(f"No checkpoint of {shown(folder)} can be used: {reasons}.")
    if errors:
        say(f"{reasons}. {found[0].name} is used.")
    return found
