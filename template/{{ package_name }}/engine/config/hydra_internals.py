"""Everything that uses names which Hydra does not promise. Nothing else in the engine does.

Tried with hydra-core 1.3.8. Where a name is missing, the public path is taken: slower or less
friendly, with the same runs.
"""

import re
from typing import Any, NoReturn

from ..errors import UserError, nearest


def jobs_of(overrides: list[str], is_grid: bool) -> list[list[str]] | None:
    """Return the overrides of each job of a grid; of a search, those that stay, as one job.

    Reason: every job is checked before the first one starts.
    Public path: return None; each job is checked when it starts. Raises Hydra's errors.
    """
    from hydra.core.global_hydra import GlobalHydra

    try:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        split, create_parser = BasicSweeper.split_arguments, OverridesParser.create
    except (ImportError, AttributeError):
        return None
    loader = GlobalHydra.instance().config_loader()  # it lists the files that a glob matches
    parsed = create_parser(loader).parse_overrides(overrides)
    if is_grid:
        return [job for batch in split(parsed, None) for job in batch]
    return [[str(o.input_line) for o in parsed if not o.is_sweep_override()]]


def check_flags(arguments: list[str]) -> None:
    """Refuse a mistyped flag in one sentence. Raises `UserError`.

    Reason: Hydra prints 20 lines of usage. Public path: these lines, also with exit code 2.
    """
    try:
        from hydra._internal.utils import get_args_parser
    except ImportError:
        return
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        word = re.search(r"unrecognized arguments: (?:.* )?(-\S+)", message)
        if word is None:
            raise UserError(f"{message[:1].upper()}{message[1:]}. See --help and --hydra-help.")
        flags = ["-q", "-v", *re.findall(r"(?<!\w)--?[a-z-]+", parser.format_usage())]
        raise UserError(f"Unknown flag '{word[1]}'.{nearest(word[1], flags)}")

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args([a for a in arguments if a != "--version"])  # it would print and exit


def do_without_lost_jobs() -> None:
    """Let submitit's launcher wait for all jobs, also if the process of one was killed.

    Reason: it raises for the first such job, although others still train. Public path: the sweep ends early.
    """
    try:
        from hydra.core.utils import JobReturn, JobStatus
        from submitit import Job

        wait = Job.results
    except (ImportError, AttributeError):
        return

    def results(job: Any) -> list[Any]:
        try:
            return wait(job)
        except Exception:  # submitit raises many kinds; the sweep's table tells how each job ended
            return [JobReturn(_return_value=None, status=JobStatus.COMPLETED)]

    Job.results = results  # type: ignore[method-assign, assignment]
