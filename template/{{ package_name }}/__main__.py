"""Commands that read a finished run: `python -m PACKAGE evaluate|predict|export|compare|reproduce|pack`;
and `check-data`, which reads the data of a config."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from .engine.errors import FAILED, FINISHED, Exit, UserError, own_words
from .engine.machine import distributed
from .engine.paths import ROOT, RUNS, shown
from .engine.text import say

MOVED = ("data.root=", "data.path=")  # how a verb is told where the run's data are now

# Each function imports what it needs, so that --help and mistakes answer before torch is loaded.


class _Parser(argparse.ArgumentParser):
    is_mixing = False

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")

    def parse_known_args(self, *arguments: Any) -> Any:  # type: ignore[override]
        """Let options stand between the words of a verb, as in `predict RUN --out FILE PATH`."""
        if self._subparsers is not None or self.is_mixing:
            return super().parse_known_args(*arguments)
        self.is_mixing = True  # the next line calls this method
        return self.parse_known_intermixed_args(*arguments)


def evaluate(options: argparse.Namespace) -> None:
    _find(options)
    run = _open(options)
    from .engine.tools.evaluate import evaluate_run

    evaluate_run(run, options.split, options.batch_size, options.out or options.run)


def predict(options: argparse.Namespace) -> None:
    if options.out is not None and options.out.suffix not in (".csv", ".jsonl"):
        raise UserError(
            f"--out {options.out.name} is not a table. Name a file that ends in .csv or .jsonl."
        )
    _find(options)
    for path in options.paths:
        if not os.path.exists(path):
            raise UserError(f"There is no file or folder {path}. Name one that exists.")
    run = _open(options)
    from .engine.tools.predict import predict_files

    predict_files(run, options.paths, options.batch_size, options.out)


def export(options: argparse.Namespace) -> None:
    _find(options)
    from .engine.tools.export import check_formats, export_run

    formats = options.format.split(",")
    check_formats(formats)
    # Other machines expect the usual memory layout.
    run = _open(options, channels_last=False)
    export_run(run, formats, options.out or options.run, options.verbose)


def compare(options: argparse.Namespace) -> None:
    endings = (".png", ".pdf", ".svg", ".eps", ".jpg", ".jpeg", ".webp")
    if options.out is not None and options.out.suffix.lower() not in endings:
        raise UserError(f"--out {options.out.name} is not a picture. Let it end in .png or .pdf.")
    from .engine.tools.chosen import newest_run
    from .engine.tools.compare import compare_runs

    named = options.run or [newest_run().parent]
    # runs/NAME/* names packed runs, too.
    folders = [path for path in named if path.suffix != ".zip"] or named
    compare_runs(folders, options.out or RUNS / "compare.png", options.key, options.tagged)


def reproduce(options: argparse.Namespace) -> None:
    _find(options)
    from .engine.tools.reproduce import reproduce_run

    steps, begin = options.steps, options.from_checkpoint
    about = (options.stop_at, steps, begin, options.report, options.seeds)
    reproduce_run(options.run, *about, **_machine(options))


def pack(options: argparse.Namespace) -> None:
    if options.out is not None and options.out.suffix != ".zip":
        raise UserError(f"--out {options.out.name} is not a zip. Let it end in .run.zip.")
    _find(options)
    from .engine.config.stored import read_config
    from .engine.tools.pack import pack_run

    config = replace(read_config(options.run), **_machine(options))
    pack_run(options.run, config, options.out, options.weights, options.data)


def check_data(options: argparse.Namespace) -> None:
    from .engine.config.compose import compose

    config = compose(*options.run)
    from .engine.tools.check_data import check_data

    check_data(config, options.out)


def _find(options: argparse.Namespace) -> None:
    """Put the folder of the run in the place of the word that names it. Raises `UserError`."""
    from .engine.run.find import is_run
    from .engine.tools.chosen import holds_runs, one_run

    word = options.run
    if word is not None and word.startswith(MOVED):  # RUN is left out
        options.moved, word = word, None
    elif word is None and options.work is predict and is_run(Path(options.paths[-1])):
        raise UserError("Name the files to predict after the run.")
    elif word is not None and options.work is predict and not holds_runs(Path(word)):
        options.paths.insert(0, shown(Path(word)))
        word = None
    options.run = one_run(None if word is None else Path(word))


def _open(options: argparse.Namespace, **replaced: Any) -> Any:
    """Return the opened run."""
    from .engine.config.stored import read_config

    read_config(options.run)  # reports a mistake before torch is loaded
    from .engine.tools.open_run import open_run

    return open_run(options.run, options.checkpoint, **_machine(options), **replaced)


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that the options and the project replace."""
    from .engine.config.stored import allowed_by_project, read_config

    given = {"device": options.device, "workers": options.workers}
    given |= {"allowed_packages": [*allowed_by_project(), *options.allow]}
    if getattr(options, "moved", None) is not None:
        key, _, place = options.moved.removeprefix("data.").partition("=")
        given["data"] = {**read_config(options.run).data, key: place}
    return {key: value for key, value in given.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    prog = f"python -m {__package__}"
    parser = _Parser(prog=prog, description="Read finished runs, in any folder.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(
        work: Callable[[argparse.Namespace], None],
        text: str,
        **run: Any,
    ) -> argparse.ArgumentParser:
        own = verbs.add_parser(work.__name__.replace("_", "-"), help=text, description=text)
        own.set_defaults(work=work)
        said = "runs/NAME/TIME, or runs/NAME for its best run (default: the newest run)"
        own.add_argument(
            "run", **{"metavar": "RUN", "nargs": "?", "type": _word, "help": said, **run}
        )
        return own

    def takes_packages(own: argparse.ArgumentParser) -> None:
        own.add_argument("--allow", type=lambda text: text.split(","), default=[], metavar="PACKAGE,…",
                         help="packages whose code you trust, besides allowed_packages in configs/")  # fmt: skip

    def takes_data(own: argparse.ArgumentParser) -> None:
        own.add_argument("moved", type=_moved, nargs="?", metavar="data.root=PATH",
                         help="where the run's data are now")  # fmt: skip

    def takes_model(own: argparse.ArgumentParser, device: str | None = None) -> None:
        own.add_argument("--checkpoint", type=_checkpoint, default="best", metavar="best|last|PATH",
                         help="which weights (default: best)")  # fmt: skip
        own.add_argument("--device", default=device, help="auto, cpu, cuda, cuda:1 …")
        own.add_argument("--workers", type=_from(0), help="loader workers")
        takes_packages(own)

    one = verb(evaluate, "Compute the values of a split, a confusion matrix and class scores.")
    takes_data(one)
    one.add_argument("--split", choices=("val", "test"), default="val")
    one.add_argument("--out", type=_path, metavar="DIR", help="where to write (default: RUN)")
    one.add_argument("--batch-size", type=_from(1), help="samples at a time")
    takes_model(one)

    one = verb(predict, "Predict labels and probabilities of files, as CSV or JSON lines.")
    one.add_argument("paths", type=_shown_path, metavar="PATH", nargs="+",
                     help="files, or folders whose files are all predicted")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="a .csv or .jsonl file (default: CSV on the screen)")  # fmt: skip
    one.add_argument("--batch-size", type=_from(1), help="samples at a time")
    takes_model(one)

    one = verb(export, "Write the model as files that work without this project.")
    one.add_argument("--format", default="torch,safetensors", metavar="FORMAT,…",
                     help="torch, safetensors, onnx (default: torch,safetensors)")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="DIR", help="where to write (default: RUN)")
    one.add_argument("-v", dest="verbose", action="store_true",
                     help="show the traceback of a failure, and what torch prints")  # fmt: skip
    takes_model(one, device="cpu")

    one = verb(compare, "Show a table of runs, mean ± deviation over seeds, and their curves.",
               nargs="*", type=_path, help="run folders, or folders of them, such as runs/NAME "
               "(default: that of the newest run)")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="the picture of the curves (default: runs/compare.png)")  # fmt: skip
    one.add_argument("--key", metavar="TAG", help="what to draw (default: the monitor)")
    one.add_argument("--tagged", metavar="WORD", help="only runs with this word in their `tags`")

    one = verb(reproduce, "Train a finished run again and compare every logged value and weight. "
               "FILE.run.zip in the place of RUN: `ostinato reproduce` repeats the file.")  # fmt: skip
    takes_data(one)
    one.add_argument("--stop-at", type=_steps, default=[], metavar="STEP,…",
                     help="stop and resume after these steps, by SIGKILL and SIGTERM in turn")  # fmt: skip
    one.add_argument("--steps", type=_from(1), metavar="N", help="train only so many steps")
    one.add_argument("--from-checkpoint", type=_from(1), default=0, metavar="STEP",
                     help="go on from the run's checkpoint of this step")  # fmt: skip
    one.add_argument("--report", type=_path, metavar="FOLDER",
                     help="write a report; if the run differs, measure what rounding does")  # fmt: skip
    one.add_argument("--seeds", type=_from(1), default=0, metavar="N",
                     help="for the report of a run that differs: train with so many other seeds")  # fmt: skip
    one.add_argument("--device", help="auto, cpu, cuda, cuda:1 … (default: as the run)")
    one.add_argument("--workers", type=_from(0), help="loader workers (default: as the run)")
    takes_packages(one)

    one = verb(pack, "Write a finished run as one file, which anybody can check and repeat.")
    takes_data(one)
    one.add_argument("--weights", action="store_true", help="with all checkpoints of the run")
    one.add_argument(
        "--data", action="store_true", help="with the files below data.root or data.path"
    )
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="a .run.zip file (default: NAME-TIME.run.zip beside RUN)")  # fmt: skip
    takes_packages(one)
    one.set_defaults(device=None, workers=None)

    one = verb(check_data, "Read all samples of a config's data, and list the broken ones.",
               nargs="*", type=str, metavar="KEY=VALUE",
               help="as for train.py: data=image_folder data.root=PATH workers=4 …")  # fmt: skip
    one.add_argument("--out", type=_path, metavar="FILE",
                     help="a text file for their paths, which data.leave_out reads")  # fmt: skip
    return parser


def _repeat_files(arguments: Sequence[str]) -> None:
    """Become `ostinato reproduce` of the newest template: it needs no project. Raises `UserError`."""
    from .engine.run.facts import answer, template_address

    source = template_address()
    if source == "SOURCE":  # a folder of this machine
        source = answer("_src_path") or ""
        if not os.path.isabs(source):  # uvx would install a package of this name
            raise UserError(
                f"_src_path={source} in .copier-answers.yml is not the template's address. Write it there."
            )
    own = ("--python", sys.executable)  # the environment of uvx is another one
    words = [word for given in arguments for word in (own if given == "--here" else (given,))]
    try:
        os.execvp("uvx", ["uvx", "--from", source, "ostinato", *words])
    except FileNotFoundError:
        text = "uvx is missing, which repeats a packed run. Install uv: pip install uv."
        raise UserError(text) from None


def _path(text: str) -> Path:
    """Paths on the command line start at the current directory; paths in a config, at the project."""
    return Path(os.path.expanduser(text)).absolute()


def _word(text: str) -> str:
    """The word in the place of RUN, which may be left out."""
    return _moved(text) if text.startswith(MOVED) else str(_path(text))


def _moved(text: str) -> str:
    key, _, path = text.partition("=")
    if not text.startswith(MOVED):
        raise argparse.ArgumentTypeError(f"{text!r} is not data.root=PATH")
    return f"{key}={_path(path)}"


def _shown_path(text: str) -> str:
    """Keep the path as typed if it also works from the project's root."""
    return text if Path.cwd() == ROOT else os.path.abspath(text)


def _checkpoint(text: str) -> str:
    """A path, or a word or file name that the run knows."""
    return str(_path(text)) if os.path.isfile(_path(text)) else text


def _steps(text: str) -> list[int]:
    return [_from(1)(part) for part in text.split(",")]


def _from(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    try:
        distributed.stay_alone()
        words = list(sys.argv[1:] if arguments is None else arguments)
        if words[:1] == ["reproduce"] and any(word.endswith(".zip") for word in words):
            _repeat_files(words)
        options = _parser().parse_args(words)
        os.chdir(ROOT)
        distributed.explained()(options.work)(options)
    except Exit as error:
        say(own_words(error))  # a loader worker may have raised it
        return error.code
    except BrokenPipeError:  # `… | head` has closed stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None:
            raise
        say(f"{error.filename} cannot be used: {error.strerror}. Put this right first.")
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
