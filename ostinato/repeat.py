"""`ostinato reproduce`: repeat packed runs, each in a new folder with its own source and environment."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .check import NO_VARIABLES
from .errors import Refused, Stopped
from .layout import folder_of
from .packed import Packed, fits

DATA, REPORT = "data-of-the-run", "report-of-the-run"
"""Where the data of the file and the report lie in the new folder."""
WARNING = "This runs their code with your rights. Nothing keeps it from your files or the network."


def reproduce(given: argparse.Namespace) -> int:
    """Repeat the files, or check them. Return the exit code. Raises `Refused` before anything of a file runs."""
    is_table = given.table or len(given.files) > 1
    if given.check:
        if given.data and not Path(given.data).exists():
            raise Refused(f"--data {given.data} does not exist. Name the place of the data.")
        for option in ("steps", "from_checkpoint", "seeds", "device", "here", "python", "out"):
            if getattr(given, option):
                raise Refused(f"--check trains nothing. Leave --{option.replace('_', '-')} out.")
        return _check(given.files, given.data, is_table)
    files = [Packed(Path(name)) for name in given.files]
    base = Path(given.out or ("table-repeated" if is_table else f"{files[0].name}-repeated")).absolute()
    folders = [base / packed.name if is_table else base for packed in files]
    if base.exists():
        raise Refused(f"{base} exists. Name a new folder with --out FOLDER.")
    if twice := {folder.name for folder in folders if folders.count(folder) > 1}:
        raise Refused(f"Two files have the name {min(twice)}. Rename one, or repeat them one by one.")
    parent = next(path for path in base.parents if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise Refused(f"{parent} is not a folder that can be written to. Name a new folder with --out FOLDER.")
    for packed in files:
        _refuse_steps(packed, given)
    program = _program(given)
    places = [_data(packed, folder, given) for packed, folder in zip(files, folders, strict=True)]
    for packed, folder in zip(files, folders, strict=True):
        print(*map(_printable, _about(packed, folder)), sep="\n")
    _ask(given.trust)
    if not is_table:
        return _repeat(files[0], base, places[0], program, given)
    codes, rows = [], []
    for packed, folder, place in zip(files, folders, places, strict=True):
        try:
            codes.append(_repeat(packed, folder, place, program, given))
        except (Refused, Stopped, OSError) as error:
            print(error, file=sys.stderr)
            codes.append(1)
        rows.append(_row(packed, folder, codes[-1]))
    _tell_table(rows)
    base.mkdir(exist_ok=True)
    (base / "table.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return max(codes)


def _check(names: Sequence[str], data: str | None, is_table: bool) -> int:
    """Say what does not agree in each file. Return 1 if anything does not."""
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            packed = Packed(Path(name))
        except Refused as error:
            if not is_table:
                raise
            print(_printable(str(error)))
            rows.append({"name": Path(name).name, "claimed": {}, "repeated": {}, "verdict": "cannot be read"})
            continue
        found = [*packed.damages(), *packed.contradictions()]
        found += packed.data_differences(Path(data)) if data else []
        told = [f"{packed.path}: {text}" for text in found]
        agrees = (
            f"{packed.path} agrees: {len(packed.entries)} files, the config, the source, the values and the claims."
        )
        print(*map(_printable, told or [agrees]), sep="\n")
        verdict = "does not agree" if found else "agrees"
        rows.append({"name": packed.name, "claimed": packed.run["claims"], "repeated": {}, "verdict": verdict})
    if is_table:
        _tell_table(rows)
    return int(any(row["verdict"] != "agrees" for row in rows))


def _refuse_steps(packed: Packed, given: argparse.Namespace) -> None:
    files = (row["file"] or "" for row in packed.run["checkpoints"])
    kept = [int(match[1]) for file in files if (match := re.fullmatch(r"checkpoints/step-(\d+)\.\w+", file))]
    begin, last = given.from_checkpoint, packed.run["claims"]["steps"]
    if begin is not None and begin not in kept:
        names = ", ".join(map(str, sorted(kept))) or "none: its author can pack it with --weights"
        raise Refused(f"{packed.path} has no checkpoint of step {begin}. It has: {names}.")
    if given.steps is not None and not (begin or 0) < given.steps <= last:
        raise Refused(f"--steps {given.steps} is outside the run. Name steps from {(begin or 0) + 1} to {last}.")
    start = packed.config.get("init_from")
    if isinstance(start, str) and begin is None and not (os.path.isabs(start) and os.path.exists(start)):
        raise Refused(
            f"{packed.path} began with the weights of {_printable(start)}, which it does not hold. If it has "
            "checkpoints, take --from-checkpoint STEP."
        )
    first = min((row["step"] for row in packed.rows() if row["step"] > (begin or 0)), default=0)
    if given.steps is not None and given.steps < first:
        raise Refused(f"--steps {given.steps} is before the first logged value. Take {first} or more.")
    module = f"{packed.run['package']}/__main__.py"
    if not any(name.endswith(f"/{module}") for name in packed.below("source/")):
        raise Refused(f"{packed.path} has no {module}, which repeats a run. Ask its author for the whole source.")
    if not has_reports(packed) and (begin or given.steps or given.seeds):
        raise Refused(f"{packed.path} has an engine before 0.3.0. Leave --steps, --from-checkpoint and --seeds out.")


def has_reports(packed: Packed) -> bool:
    return any(name.endswith("/engine/tools/verdict.py") for name in packed.below("source/"))


def _program(given: argparse.Namespace) -> str:
    """Return the Python of an environment that is there already, or uv. Raises `Refused`."""
    if not (given.here or given.python):
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            raise Refused("uv is not installed. Install it, or name an environment: --here, --python PATH.")
        return uv
    active = (os.environ.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX"))
    here = next(
        (path for folder in active if folder and os.path.exists(path := f"{folder}/bin/python")), sys.executable
    )
    python = shutil.which(given.python) if given.python else here
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    if python is None or subprocess.run([python, "-I", "-c", look]).returncode != 0:
        raise Refused(f"{python or given.python} is not a Python with torch. Name another with --python PATH.")
    return os.path.abspath(python)


def _data(packed: Packed, folder: Path, given: argparse.Namespace) -> list[str]:
    """Return the override that names the place of the data. Raises `Refused` if it is not known."""
    needs, place = packed.run["data"]["needs"], packed.run["data"]["place"]
    if needs is None:
        if given.data and len(given.files) == 1:
            raise Refused("The run makes its data itself. Leave --data out.")
        return []
    was = packed.config["data"].get(needs)
    if given.data and given.data == was and needs == "path" and not os.path.exists(was):
        return []  # a name that the project looks up, such as that of a data set on a hub
    if given.data:
        found = os.path.abspath(given.data)
        if not os.path.exists(found):
            raise Refused(f"--data {given.data} does not exist. Name the place of the data.")
    elif place:
        return [f"data.{needs}={folder / DATA / place.removeprefix('data').strip('/')}"]
    elif isinstance(was, str) and os.path.isabs(was) and os.path.exists(was):
        found = was
    elif isinstance(was, str) and (f"source/{was}" in packed.entries or packed.below(f"source/{was.rstrip('/')}/")):
        return []  # the source has them
    else:
        question = f"{packed.path} does not hold its data (data.{needs} was {was})."
        answer = _answer(f"{question} Where are they? ") if sys.stdin.isatty() and not given.trust else ""
        if not os.path.exists(answer):
            wrong = f"{answer} does not exist." if answer else question
            raise Refused(f"{_printable(wrong)} Name their place: --data PATH.")
        found = os.path.abspath(answer)
    if needs == "root" and not os.path.isdir(found):
        raise Refused(f"{found} is a file, but data.root is a folder. Name the folder of the data.")
    if packed.run["data"]["files"] is not None:
        for wrong in packed.data_differences(Path(found)):
            raise Refused(f"{_printable(wrong + '.')} Name their place: --data PATH.")
    return [f"data.{needs}={found}"]


def _about(packed: Packed, folder: Path) -> list[str]:
    """Return what a reader should know before they agree."""
    run, manifest = packed.run, packed.manifest
    claims, git = run["claims"], manifest.get("git") or {}
    values = f"best {claims.get('best')}, last {claims.get('last')} ({claims.get('monitor')})"
    whose = (
        f"{git.get('remote') or 'unknown: no remote of git'}, commit {git.get('commit')}" if git else "unknown: no git"
    )
    torch = packed.requirements.get("torch")
    others = f"torch {torch} and {len(packed.requirements) - 1} other packages" if torch else "no torch"
    left_out = [*run["left_out"], *run["unavailable"]]
    resumes = manifest["resumed"] if fits(manifest.get("resumed"), [{"step": int, "extended": dict}]) else []
    longer = [f"{key}={value} after step {one['step']}" for one in resumes for key, value in one["extended"].items()]
    return [
        f"{packed.path}: {run['name']}, {packed.size / 2**20:.1f} MiB unpacked",
        f"  claims       {values}, {claims['steps']} steps",
        f"  whose code   {whose}{', with changes' * bool(git.get('diff'))}",
        f"  command      {' '.join(run['command'])}",
        f"  source       {len(packed.below('source/'))} files, of the package {run['package']}",
        f"  environment  Python {run['python']}, {others}",
        *([f"  left out     {', '.join(left_out)}"] if left_out else []),
        *([f"  resumed      with {', '.join(longer)}: from the first step, values may differ"] if longer else []),
        *(f"  does not agree: {text}" for text in packed.contradictions()),
        f"  new folder   {folder}",
    ]


def _ask(is_trusted: bool) -> None:
    print(WARNING)
    if not is_trusted:
        if not sys.stdin.isatty():
            raise Refused("Nobody can be asked here. Repeat the command with --trust if you trust this code.")
        if _answer("Go on? [y/N] ").lower() not in ("y", "yes"):
            raise Refused("Nothing was run.")


def _answer(question: str) -> str:
    try:
        return input(_printable(question)).strip()
    except EOFError:
        return ""


def _repeat(packed: Packed, folder: Path, place: list[str], program: str, given: argparse.Namespace) -> int:
    """Unpack a file, make its environment and train. The folder stays once training has begun."""
    home = folder_of(f"{packed.run['package']}/__main__.py", (name[7:] for name in packed.below("source/")))
    has_begun = False
    folder.mkdir(parents=True)
    try:
        run = unpack(packed, folder)
        python = program if given.here or given.python else _environment(packed, folder, program)
        options = {"--report": folder / REPORT if has_reports(packed) else None, "--steps": given.steps}
        options |= {"--from-checkpoint": given.from_checkpoint, "--seeds": given.seeds}
        names = map(str, packed.config.get("allowed_packages") or ())
        options |= {"--device": given.device, "--allow": ",".join(filter(str.isidentifier, names))}
        words = [word for key, value in options.items() if value for word in (key, str(value))]
        command = [python, "-m", packed.run["package"], "reproduce", str(run), *place]
        has_begun = True
        return _run([*command, *words], folder, PYTHONPATH=str(folder / home))
    finally:
        if not has_begun:
            shutil.rmtree(folder, ignore_errors=True)


def unpack(packed: Packed, folder: Path) -> Path:
    """Make the project in a new folder, and the run in it. Return the run's folder. Raises `Refused`."""
    run = folder / "runs" / packed.run["name"]
    for name in packed.entries:
        top, _, rest = name.partition("/")
        place = {"source": folder / rest, "data": folder / DATA / rest}.get(top, run / name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "xb") as file:
            file.writelines(packed.chunks(name))
    return run


def _environment(packed: Packed, folder: Path, uv: str) -> str:
    """Build the environment of the run with uv. Return its Python. Raises `Stopped`."""
    version = ".".join(packed.run["python"].split(".")[:2])
    wanted = folder / ".venv-requirements.txt"
    pins = (f"{name}=={version.partition('+')[0]}\n" for name, version in packed.requirements.items())
    wanted.write_text("".join(pins), encoding="utf-8")
    python = str(folder / ".venv" / "bin" / "python")
    has_lock = (folder / "uv.lock").exists()
    make = [uv, "sync", "--frozen", "--python", version] if has_lock else [uv, "venv", "--quiet", "--python", version]
    # Manifests before 0.3.0 name few packages. Otherwise they name all, and nothing has to be resolved.
    others = ["--no-deps"] if "environment" in packed.manifest else ["-r", "pyproject.toml"]
    install = [uv, "pip", "install", "--python", python, "-r", str(wanted), *others]
    # The lock does not tell which extras were installed, and what was added by hand.
    if _run(make, folder) or (_run(install, folder) and not has_lock):
        raise Stopped(
            "The environment of the run cannot be built here: see above. Name one that you built with --python PATH."
        )
    return python


def _run(command: Sequence[str], folder: Path, **variables: str) -> int:
    """Run a command in the folder. All its processes end with this one. Return its exit code, as a shell does."""
    env = {key: value for key, value in os.environ.items() if key not in NO_VARIABLES}
    env |= {"GIT_CEILING_DIRECTORIES": str(folder.parent), **variables}
    with subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C and SIGTERM, too: the child has a session of its own, so nobody else ends it
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)  # a run saves and stops
                process.wait(10)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _row(packed: Packed, folder: Path, code: int) -> dict[str, Any]:
    """Return the claimed and the repeated values of a run, and the verdict."""
    report: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        report = json.loads((folder / REPORT / "report.json").read_text(encoding="utf-8"))
    repeated = report.get("repeated") or {"last": (report.get("end") or {}).get("repeated")}
    verdict = report.get("verdict", "failed" if code else "identical")
    row = {"name": packed.name, "run": packed.run["name"], "claimed": packed.run["claims"], "repeated": repeated}
    return {**row, "steps": report.get("steps"), "verdict": verdict}


def _tell_table(rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [["file", "monitor", "claimed best", "repeated", "claimed last", "repeated", "verdict"]]
    for row in rows:
        pairs = [row[side].get(key) for key in ("best", "last") for side in ("claimed", "repeated")]
        values = [f"{value:.6g}" if isinstance(value, int | float) else "-" for value in pairs]
        lines.append([row["name"], row["claimed"].get("monitor") or "-", *values, row["verdict"]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(_printable("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))


def _printable(text: str) -> str:
    """Return a text without characters that a terminal obeys."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
