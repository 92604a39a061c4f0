"""Everything that uses names which Hydra does not promise. Nothing else in the engine does.

Tried with hydra-core 1.3.8. Where a name is missing, `_find` returns None and the public path is
taken: slower or less friendly, with the same runs.
"""

import importlib
import re
from typing import Any

from ..errors import UserError, nearest


def _find(module: str, name: str) -> Any:
    """Return an object of Hydra by its name, or None if this version does not have it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None


def jobs_of(overrides: list[str], is_grid: bool) -> list[list[str]] | None:
    """Return the overrides of each job of a grid; of a search, those that stay, as one job.

    Reason: every job is checked before the first one starts.
    Public path: return None; each job is checked when it starts. Raises Hydra's errors.
    """
    parser = _find("hydra.core.override_parser.overrides_parser", "OverridesParser")
    sweeper = _find("hydra._internal.core_plugins.basic_sweeper", "BasicSweeper")
    if not hasattr(parser, "parse_overrides") or not hasattr(sweeper, "split_arguments"):
        return None
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()  # it lists the files that a glob matches
    parsed = parser.create(loader).parse_overrides(overrides)
    if is_grid:
        return [job for batch in sweeper.split_arguments(parsed, None) for job in batch]
    return [[o.input_line for o in parsed if not o.is_sweep_override()]]


def check_flags(arguments: list[str]) -> None:
    """Refuse a mistyped flag in one sentence. Raises `UserError`.

    Reason: Hydra prints 20 lines of usage. Public path: these lines, also with exit code 2.
    """
    make_parser = _find("hydra._internal.utils", "get_args_parser")
    if make_parser is None:
        return
    parser = make_parser()

    def refuse(message: str) -> None:
        word = re.search(r"unrecognized arguments: (?:.* )?(-\S+)", message)
        if word is None:
            raise UserError(f"{message[:1].upper()}{message[1:]}. See --help and --hydra-help.")
        flags = ["-q", "-v", *re.findall(r"(?<!\w)--?[a-z-]+", parser.format_usage())]
        raise UserError(f"Unknown flag '{word[1]}'.{nearest(word[1], flags)}")

    parser.error = refuse
    parser.parse_args([a for a in arguments if a != "--version"])  # it would print and exit
