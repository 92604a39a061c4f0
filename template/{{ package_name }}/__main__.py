"""What reads a finished run: `python -m PACKAGE evaluate|predict|export|compare|reproduce RUN`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .engine.errors import FAILED, FINISHED, Exit, UserError
from .engine.paths import ROOT
from .engine.text import say

# torch is imported within the functions: --help and mistakes answer at once.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def evaluate(options: argparse.Namespace) -> None:
    folder, run = _open(options)
    from .engine.tools.evaluate import evaluate

    evaluate(run, options.split, options.batch_size, options.out or folder)


def predict(options: argparse.Namespace) -> None:
    if options.out is not None and options.out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out {options.out.name} must end in .csv or .jsonl.")
    for path in options.paths:
        if not os.path.exists(path):
            raise UserError(f"There is no file or folder {path}.")
    _, run = _open(options)
    from .engine.tools.predict import predict

    predict(run, options.paths, options.batch_size, options.out)


def export(options: argparse.Namespace) -> None:
    from .engine.tools.folders import one_run

    one_run(options.run)
    from .engine.tools.export import export
    from .engine.tools.formats import check_formats

    formats = options.format.split(",")
    check_formats(formats)
    # A graph for any machine: in memory as everywhere, on the CPU unless asked otherwise.
    folder, run = _open(options, channels_last=False)
    export(run, formats, options.out or folder)


def compare(options: argparse.Namespace) -> None:
    from .engine.tools.compare import compare

    compare(options.runs, options.out or ROOT / "runs/compare.png", options.key)


def reproduce(options: argparse.Namespace) -> None:
    from .engine.tools.folders import one_run
    from .engine.tools.reproduce import reproduce

    reproduce(one_run(options.run), options.stop_at, options.workers, options.device)


def _open(options: argparse.Namespace, **replaced: Any) -> tuple[Path, Any]:
    """The run's folder and the opened run."""
    from .engine.config.stored import read_config
    from .engine.tools.folders import one_run

    folder = one_run(options.run)
    read_config(folder)  # a mistake in it is told before torch is loaded
    from .engine.tools.open_run import open_run

    opened = open_run(folder, options.checkpoint, options.device, options.workers, **replaced)
    return folder, opened


def _parser() -> argparse.ArgumentParser:
    prog = f"python -m {__package__}"
    parser = _Parser(prog=prog, description="Read finished runs, wherever their folders lie.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(work: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        own = verbs.add_parser(work.__name__, help=text, description=text)
        own.set_defaults(work=work)
        return own

    def takes_model(own: argparse.ArgumentParser, device: str | None = None) -> None:
        own.add_argument("--checkpoint", type=_checkpoint, default="best", metavar="best|last|PATH",
                         help="which weights (default: best)")  # fmt: skip
        own.add_argument("--device", default=device, help="auto, cpu, cuda, cuda:1 …")
        own.add_argument("--workers", type=_number(0), help="loader processes")

    run_help = "a run folder, such as runs/NAME/TIME"
    one = verb(evaluate, "The values of a split, a confusion matrix and a table per class.")
    one.add_argument("run", type=_path, metavar="RUN", help=run_help)
    one.add_argument("--split", choices=("val", "test"), default="val")
    one.add_argument("--out", type=_path, metavar="DIR", help="where to write (default: RUN)")
    one.add_argument("--batch-size", type=_number(1), help="samples at a time")
    takes_model(one)

    one = verb(predict, "Labels and probabilities of files, as CSV or JSON lines.")
    one.add_argument("run", type=_path, metavar="RUN", help=run_help)
    one.add_argument("paths", type=_shown_path, metavar="PATH", nargs="+",
                     help="files, or folders of which all files are taken")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="a .csv or .jsonl file (default: CSV on the screen)")  # fmt: skip
    one.add_argument("--batch-size", type=_number(1), help="samples at a time")
    takes_model(one)

    one = verb(export, "The model as files for elsewhere, each checked against it.")
    one.add_argument("run", type=_path, metavar="RUN", help=run_help)
    one.add_argument("--format", default="torch,safetensors", metavar="FORMAT,…",
                     help="torch, safetensors, onnx (default: torch,safetensors)")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="DIR", help="where to write (default: RUN)")
    takes_model(one, device="cpu")

    one = verb(compare, "A table of runs, mean ± deviation over seeds, and their curves.")
    one.add_argument("runs", type=_path, metavar="RUN", nargs="+",
                     help="run folders, or folders of them, such as runs/NAME")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="the picture of the curves (default: runs/compare.png)")  # fmt: skip
    one.add_argument("--key", metavar="TAG", help="what to draw (default: what was monitored)")

    one = verb(reproduce, "Train a finished run again and compare every logged value and weight.")
    one.add_argument("run", type=_path, metavar="RUN", help=run_help)
    one.add_argument("--stop-at", type=_steps, default=[], metavar="STEP,…",
                     help="stop and resume after these steps, by SIGKILL and SIGTERM in turn")  # fmt: skip
    one.add_argument("--device", help="auto, cpu, cuda, cuda:1 … (default: as the run)")
    one.add_argument("--workers", type=_number(0), help="loader processes (default: as the run)")
    return parser


def _path(text: str) -> Path:
    """On the command line paths start at the current directory, in a config at the project."""
    return Path(text).expanduser().absolute()


def _shown_path(text: str) -> str:
    """As it was typed where that also works from the project's root."""
    return text if Path.cwd() == ROOT else os.path.abspath(text)


def _checkpoint(text: str) -> str:
    """A path, or a word or name that the run knows."""
    return str(_path(text)) if _path(text).is_file() else text


def _steps(text: str) -> list[int]:
    return [_number(1)(part) for part in text.split(",")]


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
        os.chdir(ROOT)
        options.work(options)
    except Exit as error:
        say(str(error))
        return error.code
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
