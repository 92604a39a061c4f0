"""`reproduce RUN`: train a finished run again in a new folder and compare the two.

The parent makes the new folder and compares; children train in it, one for each stop. Run as a
module, this file is a child: `python -m PACKAGE.engine.tools.reproduce FOLDER PACKAGES [STEP SIGNAL]`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.stored import read_config, to_yaml
from ..errors import FINISHED, MISTAKE, STOPPED, Exit, Failed, UserError
from ..launch import launch
from ..paths import ROOT, not_written, write_whole
from ..run.facts import describe_start, fingerprint_differences
from ..run.folder import Run, create_run
from ..run.names import is_one, newest_first, path_of
from ..text import say, tell
from .pack import checkpoint_hashes, seeds_of
from .verdict import DIFFERENT, IDENTICAL, Comparison, logged, write_report

ROUNDS_OTHERWISE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "OSTINATO_LAST_BITS": "1",
}
"""Variables with which torch, oneDNN, MKL and cuBLAS add numbers in another order, and with which the
child changes the last bit of each weight after each step: so much any other machine may round."""


def reproduce_run(
    folder: Path,
    stops: Sequence[int],
    steps: int | None = None,
    begin: int = 0,
    report: Path | None = None,
    seeds: int = 0,
    **replaced: Any,
) -> None:
    """Train the run again, stopped after the steps `stops`, and compare the two.

    steps: train only so many. begin: go on from the checkpoint of this step. report: a folder for a
    report, which also tells what rounding does. seeds: if the runs differ, train with so many other
    seeds for the report. replaced: values of config keys. Raises `UserError` before training,
    `Failed` after it.
    """
    old, config = Run(folder, None), replace(read_config(folder), **replaced)
    manifest = old.manifest()
    result = manifest.get("result")
    if manifest["status"] != "finished" or not result:
        raise UserError(f"{old.shown} is not finished but {manifest['status']}. {old.resume_hint}")
    end = steps or result["steps"]
    _refuse_mistakes(old, stops, begin, end, result["steps"])
    new = train_again(old, config, begin, end, stops)
    compared = _compare(old, new, config.monitor, begin)
    if report is not None:
        _report(report, old, new, config, compared, (begin, end), seeds)
    elif compared.verdict != IDENTICAL:
        reasons = list(_reasons(manifest, new.manifest())) or ["No reason is known."]
        raise Failed("\n  ".join([compared.first, *reasons]))
    elif end == result["steps"]:
        equal = f"{end} steps, every value that both logged, and weights_sha256"
        tell(f"identical: {equal} {result['weights_sha256'][:16]}…")
    else:
        tell(f"identical: steps {begin + 1} to {end}, every value that both logged")


def _refuse_mistakes(old: Run, stops: Sequence[int], begin: int, end: int, total: int) -> None:
    known = sorted(int(path.stem[5:]) for path in newest_first(old.checkpoints) if is_one(path))
    if begin and begin not in known:
        names = ", ".join(map(str, known)) or "none"
        raise UserError(f"{old.shown} has no checkpoint of step {begin}. It has: {names}.")
    limits = [("--steps", end, total), *(("--stop-at", step, end - 1) for step in stops)]
    for option, step, last in limits:
        if not begin < step <= last:
            raise UserError(
                f"{option} {step} is outside the run. Name steps from {begin + 1} to {last}."
            )
    first = min((step for step, *_ in logged(old.folder) if step > begin), default=0)
    if end < first:
        raise UserError(f"--steps {end} is before the first logged value. Take {first} or more.")


def train_again(
    old: Run,
    config: Config,
    begin: int,
    end: int,
    stops: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> Run:
    """Train in a new folder, stopped after the steps `stops` by SIGKILL and SIGTERM in turn, and
    after `end` if that is not the last step. variables: of the environment."""
    manifest, name = old.manifest(), config.name
    config = replace(config, name=f"{name}/reproduced", logger={}, max_minutes=None)
    about = {"reproduces": old.shown}
    if "data" in manifest["fingerprint"]:
        about["data"] = manifest["fingerprint"]["data"]
    new = create_run(config, {**describe_start([]), **about}, None)
    new.release()  # each child locks it
    tell(f"{old.shown} is trained again in {new.shown}.")
    if begin:
        _copy_checkpoint(old, new, begin, replace(config, name=name))
    for number, step in enumerate(sorted(set(stops))):
        stop = (str(step), "SIGTERM" if number % 2 else "SIGKILL")
        _run_child(new, config, manifest, variables, *stop)
    last = () if end == manifest["result"]["steps"] else (str(end), "SIGTERM")
    _run_child(new, config, manifest, variables, *last)
    return new


def _copy_checkpoint(old: Run, new: Run, step: int, config: Config) -> None:
    """Let a new run go on from a checkpoint, whose `config` has the name of the old run."""
    kind = "dcp" if path_of(old.checkpoints, step, "dcp").exists() else "pt"
    path, copy = path_of(old.checkpoints, step, kind), path_of(new.checkpoints, step, kind)
    try:
        shutil.copytree(path, copy) if kind == "dcp" else shutil.copyfile(path, copy)
        shutil.copyfile(old.folder / "metrics.jsonl", new.folder / "metrics.jsonl")
        write_whole(new.folder / "config.yaml", to_yaml(config))
    except OSError as error:
        raise not_written(copy, error) from error


def _run_child(
    run: Run,
    config: Config,
    manifest: Mapping[str, Any],
    variables: Mapping[str, str] | None,
    *stop: str,
) -> None:
    """Train in `run`'s folder, with as many threads and processes as the first run had."""
    processes = manifest["fingerprint"]["world_size"]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", __spec__.name, str(run.folder), ",".join(config.allowed_packages), *stop]
    threads = str(manifest["fingerprint"]["threads"])
    env = {**os.environ, "OMP_NUM_THREADS": threads, **(variables or {})}
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    status = run.manifest()["status"]
    expected = {("SIGKILL",): "running", ("SIGTERM",): "stopped", (): "finished"}[stop[1:]]
    if status != expected or (processes == 1 and code not in (FINISHED, STOPPED, -signal.SIGKILL)):
        kind = UserError if code == MISTAKE else Failed
        raise kind(f"The new run ended with code {code}. Look at {run.shown}/train.log.")


def _compare(old: Run, new: Run, monitor: str, begin: int) -> Comparison:
    """Compare what two runs logged after the step `begin`, and their results if both are whole."""
    ours, theirs = ({k: v for k, v in logged(r.folder).items() if k[0] > begin} for r in (old, new))
    one, other = (run.manifest().get("result") or {} for run in (old, new))
    keys = ("steps", "last", "best", "weights_sha256", "ema_sha256") if other else ()
    pairs = ((f"{key} at the end", one.get(key), other.get(key)) for key in keys)
    return Comparison(ours, theirs, [pair for pair in pairs if pair[1] != pair[2]], monitor)


def _report(
    folder: Path,
    old: Run,
    new: Run,
    config: Config,
    compared: Comparison,
    span: tuple[int, int],
    seeds: int,
) -> None:
    """Write the report. If the runs differ, measure first what rounding does. Raises `Failed`."""
    (begin, end), manifest = span, old.manifest()
    is_whole, threads = end == manifest["result"]["steps"], manifest["fingerprint"]["threads"]
    hashes = [] if compared.differing else _weights(old, new, begin)
    compared.results += [row for row in hashes if row[1] != row[2]]
    values = [row.get("last") for row in _told(old, "seeds", seeds_of)] if is_whole else []
    rounding = (
        f"{threads // 2 or 2} threads, older vector instructions and other last bits of weights"
    )
    if is_different := compared.verdict != IDENTICAL:
        tell(compared.first, "Next, a repetition that rounds in another order.")
        variables = {**ROUNDS_OTHERWISE, "OMP_NUM_THREADS": str(threads // 2 or 2)}
        try:
            second = train_again(old, config, begin, end, variables=variables)
            compared = replace(compared, other=logged(second.folder))
            others = [replace(config, seed=config.seed + n) for n in range(1, seeds + 1)]
            runs = [new, *(train_again(old, other, 0, end) for other in others)]
            if seeds and compared.end:
                values = [logged(run.folder).get(compared.end) for run in runs]
        except Exit as error:  # the report tells what is known
            say(str(error))
    about = {
        "run": old.shown,
        "repetition": new.shown,
        "steps": span,
        "claimed": manifest["result"],
        "repeated": new.manifest().get("result"),
        "hashes": len(hashes),
        "rounding": rounding,
        "reasons": list(_reasons(manifest, new.manifest())) if is_different else [],
    }
    verdict = write_report(folder, compared, about, [v for v in values if v is not None])
    if verdict == DIFFERENT:
        raise Failed(compared.first)


def _weights(old: Run, new: Run, begin: int) -> list[tuple[str, Any, Any]]:
    """Return the hashes of the weights in checkpoints that both runs have, after the step `begin`."""
    rows = _told(old, "checkpoints", checkpoint_hashes), checkpoint_hashes(new.folder)
    one, other = ({row["step"]: row["weights_sha256"] for row in each} for each in rows)
    steps = sorted(step for step in one.keys() & other.keys() if step > begin)
    return [(f"weights_sha256 at step {step}", one[step], other[step]) for step in steps]


def _told(run: Run, key: str, look: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what the file of a run tells, or what its folder shows if no file brought it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        rows = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))[key]
        return [dict(row) for row in rows]
    return look(run.folder)


def _reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from fingerprint_differences(old["fingerprint"], new["fingerprint"])
    for resumed in old.get("resumed", []):
        extended = [f"{key}={value}" for key, value in resumed["extended"].items()]
        for change in (*extended, *resumed["differences"]):
            yield f"the first run was resumed at step {resumed['step']} with {change}"
    if "source" in old and "source" in new:
        was, now = old["source"], new["source"]
        yield from (f"{path} has changed" for path in was if now.get(path, was[path]) != was[path])
        return
    before, after = (manifest.get("git") or {} for manifest in (old, new))
    if before.get("commit") != after.get("commit"):
        yield f"git commit {before.get('commit')} → {after.get('commit')}"
    if before.get("diff") != after.get("diff"):
        yield "the uncommitted changes to the code differ"


def _train(folder: str, allowed: str, step: str = "", name: str = "") -> int:
    """Go on with the run `folder`; send this process the signal `name` after `step`."""
    from ..build.parts import Parts
    from ..loop import Loop
    from ..train import train

    class Stopping(Loop):
        def __init__(self, parts: Parts, run: Run, *rest: Any) -> None:
            if parts.fingerprint["data"] != run.manifest().get("data", parts.fingerprint["data"]):
                raise UserError(
                    "The data are others than those of the run. Bring the old ones back, or name "
                    "their place: data.root=PATH."
                )
            super().__init__(parts, run, *rest)

        def after_step(self) -> None:
            if "OSTINATO_LAST_BITS" in os.environ:
                change_last_bits(self.parts.parameters.values(), self.step)
            if str(self.step) == step:
                os.kill(os.getpid(), signal.Signals[name])
            super().after_step()

    escaped = folder.replace("\\", "\\\\").replace("'", "\\'")
    sys.argv = ["train.py", f"resume='{escaped}'", f"allowed_packages=[{allowed}]"]
    return launch(lambda job: train(job, Stopping))


def change_last_bits(weights: Iterable[Any], key: int) -> None:
    """Make each weight larger or smaller by its last bit, by chance, alike in all processes."""
    import torch

    from .. import rng

    rng.seed_all(key)  # each draw of a run sets its own key
    with torch.no_grad():
        for weight in weights:
            signs = torch.sign(torch.rand_like(weight) - 0.5)
            weight.mul_(1 + torch.finfo(weight.dtype).eps * signs)


if __name__ == "__main__":
    sys.exit(_train(*sys.argv[1:]))
