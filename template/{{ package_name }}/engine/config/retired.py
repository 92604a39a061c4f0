"""Config keys of earlier releases that are ignored. Old configs may still hold them.

To retire a key, delete its field in schema.py, add it here, and announce it in the changelog under
**Removed**.
"""

import copy
import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..text import say


class Retired(NamedTuple):
    version: str  # the first release without the key
    default: Any  # what the engine does now; this value needs no warning
    sentence: str  # what happens instead, and what to do


RETIRED = {
    "log.digits": Retired(
        "0.3.0", 4, "The console shows 4 significant digits; read all digits in metrics.jsonl."
    )
}


def without_retired(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's values without retired keys; say once per command what is ignored."""
    kept = copy.deepcopy(dict(values))
    for key, retired in RETIRED.items():
        section, _, name = key.rpartition(".")
        holder = kept.get(section) if section else kept
        if isinstance(holder, dict) and holder.pop(name, retired.default) != retired.default:
            _warn(key)
    return kept


@functools.cache
def _warn(key: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the main process says it
        version, _, sentence = RETIRED[key]
        say(f"The config key '{key}' is ignored since release {version}. {sentence}")


def accept_retired(arguments: list[str]) -> list[str]:
    """Return the command line with retired keys spelled so that Hydra takes them: `++key=value`."""
    return [
        f"++{a.lstrip('+')}" if a.lstrip("+").split("=")[0] in RETIRED else a for a in arguments
    ]
