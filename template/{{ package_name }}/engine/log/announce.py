"""What a run says at its start and at its end, and its curves."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from ..build.optimizer import group_table
from ..build.parts import Parts
from ..errors import one_line
from ..paths import shown
from ..run.folder import Run
from ..text import logger, number


def announce(parts: Parts, run: Run, step: int) -> None:
    """Log the model, the sizes of the data, and the table of parameter groups."""
    count = sum(p.numel() for p in parts.parameters.values())
    train, val = parts.train.plan.size, parts.val.plan.size if parts.val else 0
    where = f" from step {step}" if step else ""
    logger.info(
        f"{run.shown}{where}: {type(parts.model).__name__} with {count:,} parameters, {train:,} "
        f"training and {val:,} validation samples, {parts.total_steps:,} steps on {parts.device} "
        f"in {parts.precision}"
    )
    for line in group_table(parts.optimizer):
        logger.info(f"  {line}")
    if text := other_pictures(parts):
        logger.warning(text)
    decay, steps = parts.config.ema_decay, parts.total_steps
    share = 0 if decay is None or parts.config.ema_warmup else decay**steps
    if share > 0.1:
        logger.warning(
            f"ema_decay={decay} is slow for {steps:,} steps: at the end, {share:.0%} of the average are "
            f"still the first weights. Set ema_warmup=true or ema_decay={0.01 ** (1 / steps):.2g}."
        )


def other_pictures(parts: Parts) -> str:
    """Say how the data differ from the pictures that the model's weights were trained on, or "".

    A model with pretrained weights has an attribute `trained_on`: a dict with `mean` and `std`, one
    number for each channel, the `size` in pixels and the `interpolation`.
    """
    expected, data = getattr(parts.model, "trained_on", None), parts.config.data
    if not isinstance(expected, Mapping):
        return ""
    channels, *sides = parts.data.info.get("shape", (3,))
    other: dict[str, Any] = {}
    for key in ("mean", "std"):
        wanted = list(expected[key])
        if len(wanted) != channels:
            wanted = [round(sum(wanted) / len(wanted), 4)]
        given = data.get(key)
        given = given if isinstance(given, list) else [given]
        if (given * channels)[:channels] != (wanted * channels)[:channels]:
            other[key] = wanted
    if any(side != expected["size"] for side in sides):
        other["size"] = expected["size"]
    dataset = parts.train.reader.dataset
    if getattr(dataset, "interpolation", expected["interpolation"]) != expected["interpolation"]:
        other["interpolation"] = expected["interpolation"]
    # The key `size` of some data is their number of samples.
    keys = data.keys() - (set() if data.get("size") in (None, *sides[:1], sides) else {"size"})
    settable = [f"data.{key}={other[key]}".replace(" ", "") for key in other if key in keys]
    others = [f"{key} {value}" for key, value in other.items() if key not in keys]
    text = "The model's weights may expect other pictures than yours."
    if settable:
        text += f" To prepare yours in the same way, add {' '.join(settable)} to the command."
    if others:
        text += f" The data set has no key for {', '.join(others)}."
    return text if other else ""


def save_curves(run: Run, result: dict[str, Any]) -> None:
    """Draw `curves.png`. A failure here is a warning: the run itself is finished."""
    try:
        from ..tools.curves import draw_curves

        draw_curves(run.folder, result["monitor"], result["best"])
    except Exception as error:  # a missing package, a full disk, no fonts …
        logger.warning(f"No curves.png was drawn: {one_line(error)}")


def announce_end(run: Run, result: dict[str, Any]) -> None:
    """Log where the curves are, the best value and the hash of the weights."""
    best = "" if result["best"] is None else f"best {result['monitor']} {number(result['best'])}, "
    curves = [f"{run.shown}/curves.png"] if (run.folder / "curves.png").exists() else []
    if (run.folder / "tensorboard").exists():
        curves.append(f"tensorboard --logdir {quote(shown(run.folder.parent))}")
    if reason := result["stopped_early"]:
        logger.info(f"Early stopping: {reason}. {run.resume_hint} early_stopping_patience=null")
    if curves:
        logger.info(f"Look at the curves: {' or '.join(curves)}")
    logger.info(f"Finished: {best}{run.shown}, weights_sha256 {result['weights_sha256']}")
