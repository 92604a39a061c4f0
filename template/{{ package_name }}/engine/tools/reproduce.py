"""`reproduce RUN`: a finished run once more, in a new folder, and whether the two are identical.

The parent makes the new run's folder and compares; children train in it, one for each stop. Run as a
module this file is such a child: `python -m PACKAGE.engine.tools.reproduce FOLDER [STEP SIGNAL]`.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.stored import flat, read_config
from ..errors import FAILED, FINISHED, STOPPED, Exit, UserError
from ..launch import launch
from ..paths import ROOT, shown
from ..run.facts import describe_start, fingerprint_differences
from ..run.folder import Run, create_run
from ..run.metrics import read_metrics


class Different(Exit):
    """The two runs are not identical, or the second one failed."""

    code = FAILED


def reproduce(folder: Path, stops: Sequence[int], workers: int | None, device: str | None) -> None:
    """Train `folder`'s run again, stopped in turn by SIGKILL and SIGTERM after the steps `stops`.

    Raises `UserError` before training, `Different` after it.
    """
    old = Run(folder, None)
    manifest, config = old.manifest(), read_config(folder)
    result = manifest.get("result")
    if manifest["status"] != "finished" or not result:
        raise UserError(
            f"{shown(folder)} is not finished but {manifest['status']}: go on with it as "
            f"resume={shown(folder)} first."
        )
    for step in stops:
        if not 1 <= step < result["steps"]:
            raise UserError(
                f"--stop-at {step} is not within the run: name steps from 1 to "
                f"{result['steps'] - 1}."
            )
    config = replace(config, name=f"{config.name}/reproduced", logger={}, max_minutes=None)
    config = replace(config, workers=config.workers if workers is None else workers)
    config = replace(config, device=config.device if device is None else device)
    new = create_run(config, {**describe_start([]), "reproduces": shown(folder)}, None)
    new.release()  # its children take it in turn
    print(f"{shown(folder)} is trained again in {new.shown}.", flush=True)
    stored = manifest["fingerprint"]
    for number, step in enumerate(sorted(set(stops))):
        _child(new, stored, str(step), "SIGTERM" if number % 2 else "SIGKILL")
    _child(new, stored)

    difference = first_difference(old, new)
    if difference is None:
        print(
            f"identical: {result['steps']} steps, every value that both logged, and weights_sha256 "
            f"{result['weights_sha256']}"
        )
        return
    reasons = list(_reasons(manifest, new.manifest()))
    raise Different(
        f"{difference}\n"
        + "\n".join(
            f"  {reason}" for reason in reasons or ["Nothing is known to differ between them."]
        )
    )


def _child(run: Run, fingerprint: Mapping[str, Any], *stop: str) -> None:
    """Trains in `run`'s folder, as many threads and processes as the first run had."""
    processes = fingerprint["world_size"]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", __spec__.name, str(run.folder), *stop]
    env = {**os.environ, "OMP_NUM_THREADS": str(fingerprint["threads"])}
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    status = run.manifest()["status"]
    expected = {("SIGKILL",): "running", ("SIGTERM",): "stopped", (): "finished"}[stop[1:]]
    if status != expected or (processes == 1 and code not in (FINISHED, STOPPED, -signal.SIGKILL)):
        raise Different(f"The run did not come to its end again (code {code}); see {run.shown}.")


def first_difference(old: Run, new: Run) -> str | None:
    """A sentence on the first value that two finished runs do not share; None where there is none."""
    ours, theirs = _logged(old.folder), _logged(new.folder)
    for place in sorted(ours.keys() & theirs.keys(), key=lambda place: (place[1], place[2])):
        a, b = ours[place], theirs[place]
        if a != b and not (math.isnan(a) and math.isnan(b)):
            return f"different: first at step {place[1]} in {place[2]}: {a!r}, and again {b!r}."
    for key in ("steps", "last", "best", "weights_sha256", "ema_sha256"):
        a, b = (run.manifest()["result"].get(key) for run in (old, new))
        if a != b:
            return f"different: {key} at the end: {a}, and again {b}.{_first_tensor(old, new)}"
    return None


def _logged(folder: Path) -> dict[tuple[int, int, str], float]:
    """Values by (start of what they are a mean over, step, key); times and rates of work aside."""
    values, before = {}, 0
    for row in read_metrics(folder):
        step = row.pop("step")
        for key, value in row.items():
            if not key.startswith("time/"):
                # Another log.every makes other means: only those over the same steps compare.
                start = before if key.startswith("train/") else 0
                values[start, step, key] = value
        before = step if any(key.startswith("train/") for key in row) else before
    return values


def _first_tensor(old: Run, new: Run) -> str:
    """Where the last checkpoints differ, if both are still there."""
    from ..run import checkpoint

    paths = [checkpoint.newest_first(run.checkpoints)[:1] for run in (old, new)]
    if not all(paths) or paths[0][0].name != paths[1][0].name:
        return ""
    states = [flat(checkpoint.load(path[0])) for path in paths]
    names = [name for name, value in states[0].items() if not _equal(value, states[1].get(name))]
    names = [name for name in names if name.startswith(("model.", "ema.", "loss.", "optimizer."))]
    return f" {len(names)} tensors differ, the first is {names[0]}." if names else ""


def _equal(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def _reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What else than chance may be why two runs differ, from their manifests."""
    yield from fingerprint_differences(old["fingerprint"], new["fingerprint"])
    for resumed in old.get("resumed", []):
        where = f"the first run was resumed at step {resumed['step']}"
        for key, value in resumed["extended"].items():
            yield f"{where} to be longer ({key}={value})"
        for sentence in resumed["differences"]:
            yield f"{where} on other ground: {sentence}"
    before, after = (manifest.get("git") or {} for manifest in (old, new))
    if before.get("commit") != after.get("commit"):
        yield f"git commit {before.get('commit')} → {after.get('commit')}"
    if before.get("diff") != after.get("diff"):
        yield "the uncommitted changes to the code are not the same"


def _train(folder: str, step: str = "", name: str = "") -> int:
    """A child: goes on in the run `folder`; sends itself the signal `name` after `step`."""
    from ..loop import Loop
    from ..train import train

    class Stopping(Loop):
        def after_step(self) -> None:
            if str(self.step) == step:
                os.kill(os.getpid(), signal.Signals[name])
            super().after_step()

    escaped = folder.replace("\\", "\\\\").replace("'", "\\'")
    sys.argv = ["train.py", f"resume='{escaped}'"]
    return launch(lambda job: train(job, Stopping))


if __name__ == "__main__":
    sys.exit(_train(*sys.argv[1:]))
