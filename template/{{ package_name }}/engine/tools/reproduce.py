"""`reproduce RUN`: train a finished run again in a new folder and compare the two.

The parent makes the new folder and compares; children train in it, one for each stop. Run as a
module, this file is a child: `python -m PACKAGE.engine.tools.reproduce FOLDER PACKAGES [STEP SIGNAL]`.
"""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.stored import read_config
from ..errors import FINISHED, MISTAKE, STOPPED, Failed, UserError
from ..launch import launch
from ..paths import ROOT
from ..run.facts import describe_start, fingerprint_differences
from ..run.folder import Run, create_run, read_metrics
from ..text import tell


def reproduce_run(folder: Path, stops: Sequence[int], **replaced: Any) -> None:
    """Train the run again, stopped after the steps `stops` by SIGKILL and SIGTERM in turn.

    replaced: values of config keys. Raises `UserError` before training, `Failed` after it.
    """
    old = Run(folder, None)
    manifest, config = old.manifest(), read_config(folder)
    result = manifest.get("result")
    if manifest["status"] != "finished" or not result:
        raise UserError(f"{old.shown} is not finished but {manifest['status']}. {old.resume_hint}")
    last = result["steps"] - 1
    for step in stops:
        if not 1 <= step <= last:
            raise UserError(f"--stop-at {step} is outside the run. Name steps from 1 to {last}.")
    replaced |= {"name": f"{config.name}/reproduced", "logger": {}, "max_minutes": None}
    config = replace(config, **replaced)
    about = {"reproduces": old.shown}
    if "data" in manifest["fingerprint"]:
        about["data"] = manifest["fingerprint"]["data"]
    new = create_run(config, {**describe_start([]), **about}, None)
    new.release()  # each child locks it
    tell(f"{old.shown} is trained again in {new.shown}.")
    for number, step in enumerate(sorted(set(stops))):
        _run_child(new, config, manifest, str(step), "SIGTERM" if number % 2 else "SIGKILL")
    _run_child(new, config, manifest)

    difference = first_difference(old, new)
    if difference is not None:
        reasons = list(_reasons(manifest, new.manifest())) or ["No reason is known."]
        raise Failed("\n  ".join([difference, *reasons]))
    equal = f"{result['steps']} steps, every value that both logged, and weights_sha256"
    tell(f"identical: {equal} {result['weights_sha256'][:16]}…")


def _run_child(run: Run, config: Config, manifest: Mapping[str, Any], *stop: str) -> None:
    """Train in `run`'s folder, with as many threads and processes as the first run had."""
    processes = manifest["fingerprint"]["world_size"]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", __spec__.name, str(run.folder), ",".join(config.allowed_packages), *stop]
    env = {**os.environ, "OMP_NUM_THREADS": str(manifest["fingerprint"]["threads"])}
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    status = run.manifest()["status"]
    expected = {("SIGKILL",): "running", ("SIGTERM",): "stopped", (): "finished"}[stop[1:]]
    if status != expected or (processes == 1 and code not in (FINISHED, STOPPED, -signal.SIGKILL)):
        kind = UserError if code == MISTAKE else Failed
        raise kind(f"The new run ended with code {code}. Look at {run.shown}/train.log.")


def first_difference(old: Run, new: Run) -> str | None:
    """Describe the first value in which two finished runs differ; None if they are equal."""
    ours, theirs = _logged(old.folder), _logged(new.folder)
    for place in sorted(ours.keys() & theirs.keys()):
        a, b = ours[place], theirs[place]
        if a != b and not (math.isnan(a) and math.isnan(b)):
            return f"different: first at step {place[0]} in {place[1]}: {a!r}, and again {b!r}."
    for key in ("steps", "last", "best", "weights_sha256", "ema_sha256"):
        a, b = (run.manifest()["result"].get(key) for run in (old, new))
        if a != b:
            return f"different: {key} at the end: {a!s:.24}, and again {b!s:.24}."
    return None


def _logged(folder: Path) -> dict[tuple[int, str, int], float]:
    """Return values by (step, tag, start of their window), without times."""
    values, begin = {}, 0
    for row in read_metrics(folder):
        step, before = row.pop("step"), begin
        for key, value in row.items():
            if key.startswith("train/"):  # a mean, comparable only if it is over the same steps
                values[step, key, before], begin = value, step
            elif not key.startswith("time/"):
                values[step, key, 0] = value
    return values


def _reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from fingerprint_differences(old["fingerprint"], new["fingerprint"])
    for resumed in old.get("resumed", []):
        extended = [f"{key}={value}" for key, value in resumed["extended"].items()]
        for change in (*extended, *resumed["differences"]):
            yield f"the first run was resumed at step {resumed['step']} with {change}"
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
            if str(self.step) == step:
                os.kill(os.getpid(), signal.Signals[name])
            super().after_step()

    escaped = folder.replace("\\", "\\\\").replace("'", "\\'")
    sys.argv = ["train.py", f"resume='{escaped}'", f"allowed_packages=[{allowed}]"]
    return launch(lambda job: train(job, Stopping))


if __name__ == "__main__":
    sys.exit(_train(*sys.argv[1:]))
