"""Values that a config computes from the length of a run, such as `${epochs}`. Without torch."""

import dataclasses
from collections.abc import Sequence

from ..errors import UserError
from ..text import say, typed
from .compose import compose
from .schema import EXTENDING, OPERATIONAL, Config
from .stored import changed_keys, flat


def follow_length(config: Config, stored: Config, overrides: Sequence[str]) -> Config:
    """Return the config of a run that becomes longer, with the values computed from its length.

    overrides: those that began the run. Raises `UserError` for a value that may not change.
    """
    raised = sorted(changed_keys(stored, config) & EXTENDING)
    if not raised:
        return config

    def composed_at(length: Config) -> Config:
        values = {key: getattr(length, key) for key in raised}
        return compose(*overrides, *(f"{k}={typed(v)}" for k, v in values.items()))

    keys, free = ", ".join(raised), OPERATIONAL | EXTENDING
    try:
        short, long = composed_at(stored), composed_at(config)
    except UserError:
        short = None
    if short is None or changed_keys(short, stored) - free - {"name"}:
        say(f"The config files have changed. What they computed from {keys} stays as it was.")
        return config
    before, after = (flat(dataclasses.asdict(c)) for c in (short, long))
    for key in [k for k in before if before[k] != after.get(k) and k not in (*raised, "name")]:
        top = key.split(".")[0]
        if top not in free:
            raise UserError(
                f"{keys} cannot be changed: {key}={before[key]} was computed from it. Start a new run."
            )
        if getattr(config, top) == getattr(stored, top) == getattr(short, top):
            config = dataclasses.replace(config, **{top: getattr(long, top)})
    return config
