"""The command line: `ostinato update`, `ostinato check` and `ostinato reproduce`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import update
from .check import Checks
from .errors import Refused, Stopped
from .git import GitFailed, check_version, forget_environment
from .render import ANSWERS
from .repeat import reproduce
from .resolved import check_branch

DONE, STOPPED, REFUSED = 0, 1, 2
UNCHANGED = "The project is unchanged, or `ostinato update --abort` restores it."
KEPT = "A folder in which training had begun stays: delete it to begin again."


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="ostinato", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("update", help="update the project in this folder to a newer version of the template")
    one.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values for the short training")
    one.add_argument(
        "--to", metavar="VERSION", help="a version, or HEAD for the newest commit; default: the newest version"
    )
    one.add_argument(
        "--data", action="append", default=[], metavar="KEY=VALUE", help="change an answer, such as ci=gitlab"
    )
    other = commands.add_parser("check", help="check an update that you resolved or merged by hand")
    other.add_argument(
        "words",
        nargs="*",
        metavar="BRANCH or KEY=VALUE",
        help="the branch of the update, by default the one checked out; config values for the short training",
    )
    third = commands.add_parser("reproduce", help="repeat packed runs, or check them")
    third.add_argument("files", nargs="+", metavar="FILE", help="a packed run, NAME.run.zip")
    third.add_argument("--check", action="store_true", help="train nothing: check that the file agrees with itself")
    third.add_argument("--trust", action="store_true", help="do not ask before code of the file runs")
    third.add_argument("--data", metavar="PATH", help="where the data are, if the file does not hold them")
    third.add_argument("--steps", type=_count, metavar="N", help="train so many steps only")
    third.add_argument("--from-checkpoint", type=_count, metavar="STEP", help="go on from this packed checkpoint")
    third.add_argument("--seeds", type=_count, metavar="N", help="if the run differs, train with so many other seeds")
    third.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 …; default: as the run")
    where = third.add_mutually_exclusive_group()
    where.add_argument("--here", action="store_true", help="install nothing: use the active environment")
    where.add_argument("--python", metavar="PATH", help="install nothing: use the environment of this Python")
    third.add_argument("--out", metavar="FOLDER", help="the new folder; default: NAME-repeated")
    third.add_argument("--table", action="store_true", help="end with a table of claimed and repeated values")
    for command in (one, other):
        command.add_argument("--source", metavar="ADDRESS", help="where the template lies now; an update records it")
        command.add_argument("--answers-file", metavar="PATH", default=ANSWERS, help=f"default: {ANSWERS}")
        command.add_argument("--python", metavar="PATH", help="the Python for the tests; default: the project's .venv")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="try everything, change nothing")
    what.add_argument(
        "--abort", action="store_true", help="restore the files after a killed update and delete its branch"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    given = parser().parse_args(arguments)
    state = KEPT if given.command == "reproduce" else UNCHANGED
    try:
        if given.command == "reproduce":
            return reproduce(given)
        check_version()
        forget_environment()
        given.answers_file = os.path.normpath(given.answers_file)
        project = update.find_project(Path.cwd(), given.answers_file)
        if given.command == "check":
            branches = [word for word in given.words if "=" not in word] or ["HEAD"]
            if len(branches) > 1:
                raise Refused(f"Two branches are named, {branches[0]} and {branches[1]}. Name one.")
            checks = Checks(project, given.python, [word for word in given.words if "=" in word])
            asked = update.Asked(source=_absolute(given.source), answers_file=given.answers_file)
            check_branch(project, branches[0], asked, checks)
            return DONE
        if given.abort:
            update.abort(project)
            return DONE
        data = dict(_pair(text) for text in given.data)
        for text in given.overrides:
            _pair(text)
        checks = Checks(project, given.python, given.overrides)
        asked = update.Asked(given.to, data, _absolute(given.source), given.answers_file, given.dry_run)
        update.update(project, asked, checks)
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except Stopped as error:
        print(error, file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `… | head` has closed stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except (GitFailed, OSError) as error:
        print(f"{error}. {state}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print(f"Interrupted. {state}", file=sys.stderr)
        return 130
    return DONE


def _absolute(source: str | None) -> str | None:
    """Return a folder's whole path, so that the project finds it from everywhere. Leave an address as it is."""
    return os.path.abspath(source) if source and os.path.isdir(source) else source


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise Refused(f"{text!r} is not of the form KEY=VALUE.")
    return key, value


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUTF8", "1")
    sys.exit(main())
