"""`reproduce RUN`: train a finished run again in a new folder and compare the two.

The parent makes the new folder and compares; children train in it, one for each stop. Run as a
module, this file is a child: `python -m PACKAGE.engine.tools.reproduce FOLDER PACKAGES [STEP SIGNAL]`.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.stored import read_config, to_yaml
from ..errors import FINISHED, MISTAKE, STOPPED, Exit, Failed, UserError
from ..launch import launch
from ..paths import ROOT, not_written, write_whole
from ..run.facts import describe_start, environment, fingerprint_differences
from ..run.folder import Run, create_run
from ..run.names import is_checkpoint, newest_first
from ..text import quoted, say, tell
from .pack import checkpoint_hashes, seeds_of
from .verdict import DIFFERENT, IDENTICAL, Comparison, logged, write_report

ROUNDS_OTHERWISE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "OSTINATO_LAST_BITS": "1",
}
"""With these variables torch, oneDNN, MKL and cuBLAS add numbers in another order. The last one makes
the child change the last bit of each weight after each step: any other machine may round so much."""


@dataclass(frozen=True)
class Repetition:
    """A finished run, and the steps of it that are trained again: those after `begin` up to `end`."""

    old: Run
    manifest: Mapping[str, Any]  # of `old`
    config: Config
    begin: int
    end: int

    @property
    def is_whole(self) -> bool:
        """True if the run is trained again up to its last step."""
        return bool(self.end == self.manifest["result"]["steps"])

    def train(self, *stops: int, **variables: str) -> Run:
        """Train in a new folder. SIGKILL and SIGTERM in turn stop it after the steps `stops`. It ends
        after `end` if that is not the last step. variables: of the environment."""
        name = self.config.name
        config = replace(self.config, name=f"{name}/reproduced", logger={}, max_minutes=None)
        about = {"reproduces": self.old.shown, "data": self.manifest["fingerprint"]["data"]}
        new = create_run(config, {**describe_start([]), **about}, None)
        new.release()  # each child locks it
        tell(f"{self.old.shown} is trained again in {new.shown}, up to step {self.end}.")
        if self.begin:
            self._copy_checkpoint(new, replace(config, name=name))
        for number, step in enumerate(sorted(set(stops))):
            self._run_child(new, variables, str(step), "SIGTERM" if number % 2 else "SIGKILL")
        self._run_child(new, variables, *([] if self.is_whole else [str(self.end), "SIGTERM"]))
        return new

    def _copy_checkpoint(self, new: Run, config: Config) -> None:
        """Let a new run go on from a checkpoint, whose `config` has the name of the old run."""
        path = _checkpoints(self.old)[self.begin]
        copy = new.checkpoints / path.name
        try:
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
            shutil.copyfile(self.old.folder / "metrics.jsonl", new.folder / "metrics.jsonl")
            write_whole(new.folder / "config.yaml", to_yaml(config))
        except OSError as error:
            raise not_written(copy, error) from error

    def _run_child(self, run: Run, variables: Mapping[str, str], *stop: str) -> None:
        """Train in `run`'s folder, with as many threads and processes as the first run had."""
        processes = self.manifest["fingerprint"]["world_size"]
        threads = str(self.manifest["fingerprint"]["threads"])
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += [f"--nproc-per-node={processes}"]
        allowed = ",".join(self.config.allowed_packages)
        command += ["-m", __spec__.name, str(run.folder), allowed, *stop]
        env = {**os.environ, "OMP_NUM_THREADS": threads, **variables}
        code = subprocess.run(command, cwd=ROOT, env=env).returncode
        is_odd = processes == 1 and code not in (FINISHED, STOPPED, -signal.SIGKILL)
        expected = {("SIGKILL",): "running", ("SIGTERM",): "stopped", (): "finished"}[stop[1:]]
        if is_odd or run.manifest()["status"] != expected:
            kind = UserError if code == MISTAKE else Failed
            raise kind(f"The new run ended with code {code}. Look at {run.shown}/train.log.")

    def compare(self, new: Run) -> Comparison:
        """Compare what both runs logged after `begin`, and their results if both are whole."""
        values = logged(self.old.folder)
        claimed = {place: value for place, value in values.items() if place[0] > self.begin}
        one, other = self.manifest["result"], new.manifest().get("result") or {}
        keys = ("steps", "last", "best", "weights_sha256", "ema_sha256") if other else ()
        pairs = ((f"{key} at the end", one.get(key), other.get(key)) for key in keys)
        results = [pair for pair in pairs if pair[1] != pair[2]]
        repeated = logged(new.folder)
        return Comparison(claimed, repeated, results, self.config.monitor, begin=self.begin)

    def hashes(self, new: Run) -> list[tuple[str, Any, Any]]:
        """Return the hashes of the weights in checkpoints after `begin` that both runs have."""
        rows = _told(self.old, "checkpoints", checkpoint_hashes), checkpoint_hashes(new.folder)
        one, other = ({row["step"]: row["weights_sha256"] for row in each} for each in rows)
        steps = sorted(step for step in one.keys() & other.keys() if step > self.begin)
        return [(f"weights_sha256 at step {step}", one[step], other[step]) for step in steps]

    def report(self, folder: Path, new: Run, compared: Comparison, seeds: int) -> None:
        """Write the report. If the runs differ, measure first what rounding does. Raises `Failed`."""
        hashes = [] if compared.differing else self.hashes(new)
        compared.results += [row for row in hashes if row[1] != row[2]]
        rows = _told(self.old, "seeds", seeds_of) if self.is_whole else []
        values = [row.get("last") for row in rows]
        threads = self.manifest["fingerprint"]["threads"] // 2 or 2
        if is_different := compared.verdict != IDENTICAL:
            tell(compared.first, "Next, a repetition that rounds in another order.")
            try:
                second = self.train(**ROUNDS_OTHERWISE, OMP_NUM_THREADS=str(threads))
                compared = replace(compared, other=logged(second.folder))
                others = (replace(self.config, seed=self.config.seed + n + 1) for n in range(seeds))
                runs = [new, *(replace(self, config=each, begin=0).train() for each in others)]
                if seeds and compared.end:
                    values = [logged(run.folder).get(compared.end) for run in runs]
            except Exit as error:  # the report tells what is known
                say(str(error))
        about = {
            "run": self.old.shown,
            "repetition": new.shown,
            "steps": (self.begin, self.end),
            "claimed": self.manifest["result"],
            "repeated": new.manifest().get("result"),
            "hashes": len(hashes),
            "rounding": f"{threads} threads, older vector instructions and other last bits of weights",
            "reasons": _reasons(self.manifest, new.manifest()) if is_different else [],
        }
        verdict = write_report(folder, compared, about, [v for v in values if v is not None])
        if verdict == DIFFERENT:
            raise Failed(compared.first)


def reproduce_run(
    folder: Path,
    stops: Sequence[int],
    steps: int | None,
    begin: int,
    report: Path | None,
    seeds: int,
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
    if manifest["status"] != "finished":
        raise UserError(f"{old.shown} is not finished but {manifest['status']}. {old.resume_hint}")
    result = manifest["result"]
    again = Repetition(old, manifest, config, begin, steps or result["steps"])
    _refuse_mistakes(again, stops)
    new = again.train(*stops)
    compared = again.compare(new)
    if report is not None:
        again.report(report, new, compared, seeds)
    elif compared.verdict != IDENTICAL:
        reasons = _reasons(manifest, new.manifest()) or ["No reason is known."]
        raise Failed("\n  ".join([compared.first, *reasons]))
    elif again.is_whole:
        equal = f"{again.end} steps, every value that both logged, and weights_sha256"
        tell(f"identical: {equal} {result['weights_sha256'][:16]}…")
    else:
        tell(f"identical: steps {begin + 1} to {again.end}, every value that both logged")


def _refuse_mistakes(again: Repetition, stops: Sequence[int]) -> None:
    begin, end, known = again.begin, again.end, _checkpoints(again.old)
    if begin and begin not in known:
        names = ", ".join(map(str, sorted(known))) or "none"
        raise UserError(f"{again.old.shown} has no checkpoint of step {begin}. It has: {names}.")
    limits = [("--steps", end, again.manifest["result"]["steps"])]
    processes = again.manifest["fingerprint"]["world_size"]
    # Several processes stop one step later than named.
    limits += [("--stop-at", step, end - min(processes, 2)) for step in stops]
    for option, step, last in limits:
        if not begin < step <= last:
            raise UserError(
                f"{option} {step} is outside the run. Name steps from {begin + 1} to {last}."
            )
    first = min((step for step, *_ in logged(again.old.folder) if step > begin), default=0)
    if end < first:
        raise UserError(f"--steps {end} is before the first logged value. Take {first} or more.")


def _checkpoints(run: Run) -> dict[int, Path]:
    """Return the numbered checkpoints of a run by their steps."""
    paths = filter(is_checkpoint, newest_first(run.checkpoints))
    return {int(path.stem[5:]): path for path in paths}


def _told(run: Run, key: str, look: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what the file of a run tells, or what its folder shows if no file brought it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        rows = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))[key]
        return [dict(row) for row in rows]
    return look(run.folder)


def _reasons(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between the manifests of two runs."""
    found = fingerprint_differences(old["fingerprint"], new["fingerprint"])
    for resumed in old.get("resumed", []):
        changes = [f"{key}={value}" for key, value in resumed["extended"].items()]
        changes += resumed["differences"]
        found += [f"the first run was resumed at step {resumed['step']} with {c}" for c in changes]
    if was := old.get("source"):
        now = new["source"]
        found += [f"{path} has changed" for path in was if now.get(path, was[path]) != was[path]]
    else:
        before, after = (manifest.get("git") or {} for manifest in (old, new))
        if before.get("commit") != after.get("commit"):
            found.append(f"git commit {before.get('commit')} → {after.get('commit')}")
        if before.get("diff") != after.get("diff"):
            found.append("the uncommitted changes to the code differ")
    if was := old.get("environment"):
        now = new["environment"]
        # torch's text names the vector extensions, too, which are a difference of their own.
        builds = {re.sub("CPU capability.*", "", str(each.get("torch"))) for each in (was, now)}
        if len(builds) > 1:
            found.append("the build of torch differs: see environment.torch in both manifests")
        # New ones count, too. OMP_NUM_THREADS is set here; the fingerprint has the number of threads.
        variables = dict.fromkeys(now["variables"]) | was.get("variables", {})
        variables.pop("OMP_NUM_THREADS", None)
        was = {**was, "torch": now["torch"], "variables": variables}
        found += fingerprint_differences(was, now)
    return list(dict.fromkeys(found))


def _train(folder: str, allowed: str, step: str = "", name: str = "") -> int:
    """Go on with the run `folder`; send this process the signal `name` after `step`."""
    import torch

    from .. import rng
    from ..build.parts import Parts
    from ..loop import Loop
    from ..machine.distributed import is_main
    from ..train import train

    class Stopping(Loop):
        def __init__(self, parts: Parts, run: Run, *rest: Any) -> None:
            if parts.fingerprint["data"] != run.manifest().get("data", parts.fingerprint["data"]):
                raise UserError(
                    "The data differ from those of the run. Bring the old ones back, or name "
                    "their place: data.root=PATH."
                )
            super().__init__(parts, run, *rest)
            if is_main():
                run.update_manifest(environment=environment())
            if step:
                self.vote.most = 1  # so several processes stop one step later

        def after_step(self) -> None:
            if "OSTINATO_LAST_BITS" in os.environ:  # changed by chance, alike in all processes
                rng.seed_all(self.step)  # each draw of a run sets its own key
                with torch.no_grad():
                    for weight in self.parts.parameters.values():
                        signs = torch.sign(torch.rand_like(weight) - 0.5)
                        weight.mul_(1 + torch.finfo(weight.dtype).eps * signs)
            if str(self.step) == step:
                os.kill(os.getpid(), signal.Signals[name])
            super().after_step()

    sys.argv = ["train.py", f"resume={quoted(folder)}", f"allowed_packages=[{allowed}]"]
    return launch(lambda job: train(job, Stopping))


if __name__ == "__main__":
    sys.exit(_train(*sys.argv[1:]))
