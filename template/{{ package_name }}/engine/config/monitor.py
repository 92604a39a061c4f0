"""Whether a smaller or a larger value of `monitor` is better. Without torch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError
from . import words
from .schema import Config


def usual_mode(monitor: str, loss: Mapping[str, Any]) -> str | None:
    """Return "min" or "max" if the name is a usual one, such as val/loss or val/class_acc.

    loss: the config's section. A term of `loss=terms` is a loss, whatever its name.
    """
    name = monitor.removeprefix("val/")
    if isinstance(terms := loss.get("terms"), Mapping) and name in terms:
        return "min"
    parts = re.findall("[a-z0-9]+", name.lower())
    known = words("monitor.yaml")
    modes = {known.get(p) or known.get(p.rstrip("0123456789")) for p in parts} & {"min", "max"}
    modes = modes or {"max" for p in parts if re.fullmatch("top[0-9]+", p)}  # else top5_error
    is_turned = parts[:1] == ["1"] or "turned" in map(known.get, parts)  # as in 1-acc
    return modes.pop() if len(modes) == 1 and not is_turned else None


def refuse_doubtful_mode(config: Config, overrides: Iterable[str]) -> None:
    """Refuse a config file's mode that may not fit `monitor`, unless the command confirms it."""
    given = {override.lstrip("+").split("=")[0] for override in overrides}
    usual, mode = usual_mode(config.monitor, config.loss), config.monitor_mode
    if mode != usual and "monitor_mode" not in given and (usual or "monitor" in given):
        fits = f"{'does' if usual else 'may'} not fit monitor={config.monitor}"
        raise UserError(
            f"monitor_mode={mode} of a config file {fits}. Add monitor_mode=auto, min or max."
        )
