"""Check that the updated project is as good as before, from the quickest check to the slowest.

The first failure ends the checks. They run in two copies of the project in temporary folders, from before and after
the update. The project itself is not touched.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from .changelog import Changes
from .errors import Refused, Stopped

SHORT = (
    "epochs=2",
    "limit_train_batches=3",
    "max_steps=6",
    "limit_val_batches=1",
    "log.every=1",
    "save_every_steps=2",
    "keep_last=3",
    "workers=0",
    "device=cpu",
    "precision=fp32",
    "compile=false",
)
"""The short training. It is longer than warm-ups, and on the CPU it repeats bit for bit."""
NAME = "ostinato-check"
PATIENCE, SLOWER = 600, 10
"""The time limit of a command after the update: these seconds, and so many times its time before."""
LONGEST = 1800
"""The time limit of a command before the update, in seconds."""
NEW_ENVIRONMENT = (
    "\nThe checks ran in a new environment with the packages of pyproject.toml. Add packages that you installed by "
    "hand there and commit, or name an environment that has all packages with --python PATH."
)


@dataclass
class Trees:
    """The two projects to compare."""

    before: Path
    after: Path
    changed: list[str]
    """The paths of files that differ."""
    changes: Changes
    """The changes that the changelog announces."""
    home: Path = Path()
    """The folder that the package lies in, such as `src`."""
    configs: str = "configs"
    """Where the config files lie."""


Say = Callable[[str], None]
Check = Callable[[Trees, Say], None]
"""Raises `Stopped` if the updated project is worse than before. Tells `Say` what it did."""


@dataclass
class Done:
    code: int
    out: str
    errors: str
    seconds: float

    def tail(self, lines: int) -> str:
        return "\n".join((self.errors.strip() or self.out.strip()).splitlines()[-lines:])

    def limit(self) -> float:
        """Return how many seconds the same command may take after the update."""
        return PATIENCE + SLOWER * self.seconds


class TooSlow(Stopped):
    """A command reached its time limit."""


class Checks:
    """All checks of an update, in order."""

    def __init__(self, project: Path, python: str | None = None, overrides: Sequence[str] = ()) -> None:
        """`python` runs the project's code, see `find_python`. `overrides` go to the short training."""
        self.project, self.python, self.overrides = project, python, list(overrides)
        self.command: list[str] = []
        self.home, self.note = Path(), ""

    def __call__(self, trees: Trees, say: Say) -> None:
        needs = [_dependencies(folder) for folder in (trees.before, trees.after)]
        self.home = trees.home
        self.command = find_python(self.project, self.python, trees.after, needs[1] - needs[0])
        done = self.run(trees.after, "-c", "import sys; print(sys.prefix)")
        if done.code != 0:
            raise Stopped(f"No Python environment can run the project: {done.tail(6)}\nName one with --python PATH.")
        say(f"  they run in {done.out.strip()}")
        if "run" in self.command:
            self.note = NEW_ENVIRONMENT
        if needs[0] != needs[1]:
            say("  the dependencies change: run `uv sync` after the update")
        self._compile(trees)
        say("  every changed Python file compiles")
        old_values = self._configs(trees)
        say("  every config key and choice is there, with its old default or an announced one")
        self._train(trees, old_values, say)
        self._test(trees, say)

    def run(self, folder: Path, *arguments: str, text: str = "", seconds: float = 0) -> Done:
        """Run `python ARGUMENTS` in one of the two projects."""
        return _run(self.command, folder, *arguments, text=text, seconds=seconds, home=self.home)

    def _compile(self, trees: Trees) -> None:
        files = [path for path in trees.changed if path.endswith(".py") and (trees.after / path).is_file()]
        if files:
            done = self.run(trees.after, "-m", "compileall", "-q", "-i", "-", text="\n".join(files))
            if done.code != 0:
                raise Stopped(f"A Python file of the updated project does not compile: {done.tail(6)}")

    def _configs(self, trees: Trees) -> dict[str, Any]:
        """Compare all config values. Return the old values of defaults that changed as announced."""
        problems = []
        for path in trees.changed:
            is_choice = re.fullmatch(rf"{re.escape(trees.configs)}/.+/[^/]+\.ya?ml", path)
            if is_choice and (trees.before / path).is_file():
                problems += self._choice(trees, path)
        before, after = (self._composed(folder) for folder in (trees.before, trees.after))
        problems += _problems(trees.changes, before, after)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise Stopped(f"The config changes, and the changelog does not announce it: {problems[0]}{more}.")
        return {key: before[key] for key in _compared(before, after)[1]}

    def _choice(self, trees: Trees, path: str) -> list[str]:
        """Return what is wrong with a changed config file."""
        group, choice = Path(path).parent.relative_to(trees.configs).as_posix(), Path(path).stem
        after = trees.after / path
        if not after.is_file():
            is_told = f"{group}={choice}" in trees.changes.removed
            return [] if is_told else [f"the choice {group}={choice} is gone"]
        try:
            texts = [yaml.safe_load((folder / path).read_text("utf-8")) for folder in (trees.before, trees.after)]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Stopped(f"{path} of the updated project cannot be read: {' '.join(str(error).split())}") from error
        old, new = (_flat(text or {}, group) for text in texts)
        return _problems(trees.changes, old, new, f" in {path}")

    def _composed(self, folder: Path) -> dict[str, Any]:
        done = self.run(folder, "train.py", "--cfg", "job", "--resolve", *self.overrides)
        try:
            values = yaml.safe_load(done.out)
        except yaml.YAMLError:
            values = None
        if done.code != 0 or not isinstance(values, dict):
            when = "before" if folder.name == "before" else "after"
            raise Stopped(f"The config cannot be composed {when} the update: {done.tail(3)}{self.note}")
        return _flat(values, "")

    def _train(self, trees: Trees, old_values: Mapping[str, Any], say: Say) -> None:
        is_sayable = all(isinstance(v, str | int | float | None) for v in old_values.values())
        old = [f"{key}={json.dumps(value)}" for key, value in old_values.items()] if is_sayable else []
        logger = ["logger=none"] if (trees.before / trees.configs / "logger/none.yaml").is_file() else []
        common = [*SHORT, *logger]
        found: list[dict[str, Any]] = []
        seconds = 0.0
        for folder, more in ((trees.before, []), (trees.after, old)):
            done = self.run(folder, "train.py", *common, *more, *self.overrides, f"name={NAME}", seconds=seconds)
            if done.code != 0:
                if folder is trees.before:
                    raise Stopped(
                        f"The project does not train before the update: {done.tail(3)}\n"
                        f"Repair it, or change the short training: `ostinato update KEY=VALUE …`.{self.note}"
                    )
                raise Stopped(f"The updated project does not train: {done.tail(6)}")
            seconds = done.limit()
            found.append(_result(_newest_run(folder)))
        if trees.changes.numbers:
            say("  it trains; numbers are not compared: the changelog says that they change")
        elif not is_sayable:
            say("  it trains; numbers are not compared: the changelog announces another default")
        else:
            _compare_results(found[0], found[1], "trains differently")
            say("  it trains to the same weights and values, bit for bit")
        if trees.changes.checkpoints:
            say("  runs from before the update are not resumed: the changelog says that they cannot be")
        else:
            self._resume(trees, found[0], seconds)
            say("  it resumes a run from before the update")

    def _resume(self, trees: Trees, whole: dict[str, Any], seconds: float) -> None:
        """Cut the run from before the update in half. Resumed after the update, it must end as before."""
        run = _newest_run(trees.before)
        half = shutil.copytree(run, trees.after / "runs" / f"{NAME}-half" / run.name)
        _, *later = sorted((half / "checkpoints").glob("step-*.pt"))
        for path in (*later, half / "checkpoints" / "best.pt"):
            path.unlink(missing_ok=True)
        manifest = json.loads((half / "manifest.json").read_text(encoding="utf-8"))
        manifest |= {"status": "stopped", "result": None}
        (half / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        done = self.run(trees.after, "train.py", f"resume={half.relative_to(trees.after)}", seconds=seconds)
        if done.code != 0:
            raise Stopped(f"The updated project cannot resume a run from before the update: {done.tail(3)}")
        if not trees.changes.numbers:
            _compare_results(whole, _result(half), "ends a run from before the update differently")

    def _test(self, trees: Trees, say: Say) -> None:
        arguments = "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--continue-on-collection-errors"
        try:
            before = self.run(trees.before, *arguments)
        except TooSlow as slow:
            say(f"  the project's tests are not compared. {slow}")
            return
        done = self.run(trees.after, *arguments, seconds=before.limit())
        known, failed = _failed(before.out), _failed(done.out)
        is_as_before = done.code == 0 or (done.code == before.code and bool(known) == bool(failed))
        if failed - known or not is_as_before:
            code = "pytest finds no test any more" if done.code == 5 else f"pytest ends with exit code {done.code}"
            first = f"{min(failed - known)} fails" if failed - known else code
            more = f" (and {len(failed - known) - 1} more)" if len(failed - known) > 1 else ""
            raise Stopped(f"The tests of the updated project do not pass: {first}{more}.\n{done.tail(12)}")
        if failed:
            say(f"  the project's tests end as before the update: {len(failed)} fail, such as {min(failed)}{self.note}")
        elif done.code not in (0, 5):  # 5: there are no tests
            say(f"  the project's tests cannot run, as before the update: {done.tail(1)}{self.note}")
        else:
            say("  the project's tests pass")


NO_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
"""With these variables uv would change another environment, and Python would import from other places."""


def _run(
    command: Sequence[str], folder: Path, *arguments: str, text: str = "", seconds: float = 0, home: Path = Path()
) -> Done:
    """Run a command. It and all its processes end with this one, or after `seconds`, by default LONGEST.

    Raises `TooSlow`.
    """
    seconds = seconds or LONGEST
    env = {key: value for key, value in os.environ.items() if key not in NO_VARIABLES}
    if home != Path():  # before a package of this name that is installed
        env["PYTHONPATH"] = str(folder / home)
    started = time.monotonic()
    with subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=env,
        text=True,
        errors="replace",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            what = f"`python {' '.join(arguments[:2])}`"
            raise TooSlow(f"{what} takes more than {seconds:.0f} s {folder.name} the update.") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return Done(process.returncode, out, errors, time.monotonic() - started)


def find_python(project: Path, asked: str | None, updated: Path, new: Iterable[str]) -> list[str]:
    """Return the command that runs the project's code: `asked`, the project's .venv, the active environment, or uv's.

    `new` are requirements that the update adds. If the environment lacks one, uv makes another environment. It does so
    in `updated`, because it writes a lock file. Raises `Refused` if `asked` is not a program.
    """
    if asked is not None:
        if (found := shutil.which(asked)) is None:
            raise Refused(f"--python {asked} is not a program. Name a Python, such as .venv/bin/python.")
        return [os.path.abspath(found)]
    uv = os.environ.get("UV") or shutil.which("uv")
    named = [v for k in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "CONDA_PREFIX") if (v := os.environ.get(k))]
    for environment in (project / ".venv", *(project / name for name in named)):
        python = str(environment / "bin" / "python")
        if os.path.exists(python) and (uv is None or not any(_lacks([python], updated, text) for text in new)):
            return [python]
    return [uv, "run", "--quiet", "--project", str(updated), "python"] if uv else [sys.executable]


def _lacks(command: Sequence[str], folder: Path, text: str) -> bool:
    """True if an environment does not satisfy a requirement."""
    need = Requirement(text)
    if need.marker is not None and not need.marker.evaluate():
        return False
    script = f"from importlib.metadata import version; print(version({need.name!r}))"
    done = _run(command, folder, "-c", script)
    return done.code != 0 or not need.specifier.contains(done.out.strip(), prereleases=True)


def _dependencies(folder: Path) -> set[str]:
    path = folder / "pyproject.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise Stopped(f"pyproject.toml cannot be read {folder.name} the update: {error}") from error
    lists = [values.get("project", {}).get("dependencies", []), *values.get("dependency-groups", {}).values()]
    return {text for needs in lists for text in needs if isinstance(text, str)}


def _flat(values: Any, prefix: str) -> dict[str, Any]:
    """Return the values by dotted key. Lists and empty mappings are values."""
    if not isinstance(values, Mapping) or not values:
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the keys that are gone, and those with another value. An empty mapping may get keys."""
    filled = {key for key in before if before[key] in ({}, None) and any(name.startswith(f"{key}.") for name in after)}
    gone = [key for key in before if key not in after and key not in filled]
    other = [k for k in before if k in after and (before[k], type(before[k])) != (after[k], type(after[k]))]
    return gone, other


def _named(key: str, announced: frozenset[str]) -> bool:
    """True if the changelog names the key, or a section of the config that holds it."""
    return any(key == name or key.startswith(f"{name}.") for name in announced)


def _problems(changes: Changes, before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> list[str]:
    """Return a sentence for each key that is gone or has another value, and that no item of the changelog names."""
    gone, other = _compared(before, after)
    sentences = [f"the config key {key}{where} is gone" for key in gone if not _named(key, changes.removed)]
    for key in other:
        if not _named(key, changes.defaults):
            sentences.append(f"{key}{where} was {before[key]!r} and is now {after[key]!r}")
    return sentences


def _newest_run(folder: Path) -> Path:
    """Return the run of the short training. Something else may lie beside it."""
    found = sorted((folder / "runs" / NAME).glob("*/manifest.json"))
    if not found:
        raise Stopped(f"The short training {folder.name} the update left no run in runs/{NAME}. Train below runs/.")
    return found[-1].parent


def _result(run: Path) -> dict[str, Any]:
    """Return the manifest's result and every logged value of a run, without times and memory."""

    def read(text: str) -> dict[str, Any]:  # releases up to 0.2 write NaN, later ones null
        return dict(json.loads(text, parse_constant=lambda nan: None))

    found: dict[str, Any] = dict(read((run / "manifest.json").read_text(encoding="utf-8"))["result"])
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = read(line)
        for key, value in row.items():
            if not key.startswith(("time/", "memory/")):
                found[f"{key} of step {row['step']}"] = value
    return found


def _compare_results(before: Mapping[str, Any], after: Mapping[str, Any], what: str) -> None:
    for key, value in before.items():
        now = after.get(key, "missing")
        if now != value:
            raise Stopped(
                f"The updated project {what}: {key} was {value} and is now {now}. The changelog does not announce this."
            )


def _failed(out: str) -> set[str]:
    return {name.split(" - ")[0] for name in re.findall(r"^(?:FAILED|ERROR) (.+)$", out, re.MULTILINE)}
