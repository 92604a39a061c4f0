"""Our flags on the command line, spelled as the overrides that they stand for."""

from ..errors import UserError
from .hydra_internals import check_flags
from .retired import accept_retired

_FLAGS = {"-q": "log.level=warning", "-v": "log.level=debug"}


def read_flags(arguments: list[str]) -> list[str]:
    """Return the command line as Hydra can read it. Raises `UserError` for a wrong flag."""
    levels = {a for a in arguments if a in _FLAGS or a.lstrip("+").startswith("log.level=")}
    if len(levels) > 1 and levels & _FLAGS.keys():
        raise UserError(f"{' and '.join(sorted(levels))} contradict each other. Give one of them.")
    many = {"-m", "--multirun"}
    # Hydra takes all overrides in one row only: `lr=0.1 -m epochs=2` would be two rows.
    rest = [a for a in arguments if a in many]
    rest += [a for a in arguments if a not in many | _FLAGS.keys()]
    place = next((i for i, a in enumerate(rest) if "=" in a and a[0] != "-"), len(rest))
    rest[place:place] = [_FLAGS[a] for a in levels & _FLAGS.keys()]
    if any(argument.startswith("-") for argument in rest):
        check_flags(rest)
    return accept_retired(rest)
