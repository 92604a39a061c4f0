"""A run folder as a model to use: config, data, weights and task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import rng
from ..api import Context
from ..build.parts import Built, load_weights
from ..config.stored import read_config
from ..errors import UserError
from ..machine.device import autocast, choose_device
from ..paths import shown
from ..rng import Domain
from ..run import checkpoint
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
    averaged: bool
    """Whether the weights are the moving average of the trained weights."""

    @property
    def model(self) -> nn.Module:
        return self.built.model

    def predict_batch(self, batch: Any, ctx: Context, done: int) -> list[dict[str, Any]]:
        """Return the task's rows for a batch on the device; `done` samples came before it."""
        key = rng.make_key(self.built.config.seed, Domain.PREDICTION)
        rng.seed_all(rng.fold_in(key, done))
        with autocast(self.built.precision, self.built.device):
            return self.built.task.predict_step(self.model, batch, ctx)

    def describe(self) -> dict[str, Any]:
        """Say where the weights are from, for the head of a file."""
        return {
            "run": f"{self.built.config.name}/{self.folder.name}",
            "checkpoint": self.checkpoint.name,
            "step": self.step,
            "epoch": self.epoch,
            "weights": "ema" if self.averaged else "model",
        }


def open_run(
    folder: Path,
    which: str = "best",
    device: str | None = None,
    workers: int | None = None,
    channels_last: bool | None = None,
) -> Opened:
    """Build what the run's config says and load its weights: the averaged ones if there are any.

    which: "best", "last" or the path of a checkpoint. The other arguments replace config values.
    Raises `UserError`.
    """
    config = read_config(folder)
    path, state = load_state(folder, which)
    given: dict[str, Any] = {"device": device, "workers": workers, "channels_last": channels_last}
    config = replace(config, **{k: value for k, value in given.items() if value is not None})
    if config.precision in ("tf32", "fp16") and choose_device(config.device).type == "cpu":
        config = replace(config, precision="fp32")
    built = build_model(config)
    averaged = state["ema"] is not None
    load_weights(built.model, state["ema"] if averaged else state["model"], "model")
    load_weights(built.loss, state["loss"], "loss")
    built.model.eval().requires_grad_(False)
    if state["fingerprint"]["data"] != built.data.fingerprint():
        say(f"The data have changed since {path.name} was written.")
    return Opened(folder, path, built, state["step"], state["epoch"], averaged)


def load_state(folder: Path, which: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that `which` names; what cannot be used is passed over for the next."""
    checkpoints = folder / "checkpoints"
    newest = checkpoint.newest_first(checkpoints)
    best = checkpoints / "best.pt"
    if which not in ("best", "last"):
        paths = [p for p in (Path(which), checkpoints / which) if p.is_file()][:1]
        if not paths:
            have = [p.name for p in (best, *newest) if p.exists()]
            raise UserError(
                f"There is no checkpoint {which}; {shown(folder)} has {', '.join(have) or 'none'}."
            )
    elif which == "best":
        paths = [best, *newest] if best.exists() else newest
        if paths and not best.exists():
            say(f"The run has no best.pt, as it was not validated yet: {paths[0].name} is used.")
    else:
        paths = [*newest, best] if best.exists() else newest
    if not paths:
        raise UserError(
            f"The run {shown(folder)} has no checkpoint yet; let it train until it has saved."
        )
    errors: list[checkpoint.Unusable] = []
    found = first_usable(paths, errors.append)
    if found is None:
        raise UserError(
            f"No checkpoint of {shown(folder)} can be used: {'; '.join(map(str, errors))}."
        )
    for error in errors:
        say(f"{error}. The next one is used.")
    return found
