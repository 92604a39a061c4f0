"""The command line: `ostinato update` and `ostinato new`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import copier

from . import update
from .check import Checks
from .errors import Refused, Stopped
from .git import GitFailed, forget_environment

DONE, STOPPED, REFUSED = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="ostinato", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("update", help="update the project in this folder to a newer version of the template")
    one.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values for the short training")
    one.add_argument("--to", metavar="VERSION", help="a version, or HEAD for the newest state; else the newest version")
    one.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help="change an answer: ci=gitlab")
    one.add_argument("--python", metavar="PATH", help="runs the project's tests; else its .venv, an active one, uv's")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="try everything and change nothing")
    what.add_argument("--abort", action="store_true", help="put back what a killed update left; delete its branch")
    new = commands.add_parser("new", help="make a project: copier copy")
    new.add_argument("source", help="URL or path of the template")
    new.add_argument("folder", type=Path)
    new.add_argument("--defaults", action="store_true", help="ask nothing")
    new.add_argument("--to", metavar="VERSION", help="a version, or HEAD; else the newest version")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = parser().parse_args(arguments)
    try:
        if given.command == "new":
            _new(given.source, given.folder, given.to, given.defaults)
            return DONE
        forget_environment()
        project = update.find_project(Path.cwd())
        if given.abort:
            update.abort(project)
            return DONE
        data = dict(_pair(text) for text in given.data)
        for text in given.overrides:
            _pair(text)
        checks = Checks(project, given.python, given.overrides)
        update.update(project, to=given.to, data=data, dry_run=given.dry_run, check=checks)
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except (Stopped, GitFailed) as error:
        print(error, file=sys.stderr)
        return STOPPED
    except OSError as error:
        print(f"{error}. The project is as it was, or is put back by the next start or --abort.", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("Interrupted. The project is as it was, or is put back by the next start or --abort.", file=sys.stderr)
        return 130
    return DONE


def _new(source: str, folder: Path, version: str | None, defaults: bool) -> None:
    try:
        copier.run_copy(source, folder, vcs_ref=version, defaults=defaults)
    except Exception as error:  # whatever an address or an answer makes Copier raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise Refused(f"No project was made of {source} in {folder}: {why}") from error


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise Refused(f"{text!r} is not of the form KEY=VALUE.")
    return key, value


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUTF8", "1")
    sys.exit(main())
