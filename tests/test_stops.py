"""Signals at every moment of a run: it exits with 75 or finishes, and the resumed run ends as the whole one.

Moments are counted in audit events, samples and batches. So a slow machine tests the same. More of them:
`pytest tests/test_stops.py --stops 20`.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import snippets
from helpers.runs import result, the_run
from helpers.watching import BASE, DATA, add_watched_data, assert_equal, batches

OPTIONS = (*(o for o in BASE if not o.startswith("task.")), "task._target_=.phases.Phases", "ema_decay=0.8")
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")


class History:
    """Commands with `resume=auto` for the run called "stopped". The run folder is checked after each."""

    def __init__(self, server, workspace: Path, options: tuple[str, ...], seed: str) -> None:
        self.server, self.workspace, self.options, self.draw = server, workspace, options, random.Random(seed)
        self.codes: list[int] = []
        done = self.command("name=whole")
        assert done.code == 0, done.out

    def command(self, *overrides: str, **env: str):
        name = next(o for o in overrides if o.startswith("name=")).removeprefix("name=")
        env["BATCHES"] = str(self.workspace / f"{name}.batches")
        return self.server.run(self.workspace / "train.py", *self.options, *overrides, **env)

    def stop(self, may_die: bool = False, worker: bool = False, twice: bool = False, **env: int) -> int:
        """Run a command that gets one signal or two. Return its exit code."""
        by, other = self.draw.sample(SIGNALS, 2)
        texts = {key: str(value) for key, value in env.items()} | {"SIGNAL": by, "SECOND": other if twice else ""}
        done = self.command(
            "name=stopped", "resume=auto", f"workers={1 if worker else self.draw.choice((0, 1))}", **texts
        )
        allowed = {0, 75}
        if twice or may_die:
            allowed |= {128 + getattr(signal, name) for name in (by, other)}
        # Before the run handles signals, SIGINT is Python's, which makes a traceback of it.
        if not (may_die and by == "SIGINT" and "KeyboardInterrupt" in done.out):
            assert done.code in allowed, (by, env, done.out)
            assert "Traceback" not in done.out, (by, env, done.out)
        self.codes.append(done.code)
        self.look()
        return done.code

    def look(self) -> None:
        """No half-made run folder and no torn checkpoint under its name."""
        parent = self.workspace / "runs/stopped"
        folders = list(parent.iterdir()) if parent.exists() else []
        assert len(folders) <= 1, folders
        for folder in folders:
            assert not folder.name.startswith(".")
            assert json.loads((folder / "manifest.json").read_text())["status"] in ("stopped", "finished", "running")
            assert (folder / "config.yaml").read_text()
            for path in (folder / "checkpoints").glob("[!.]*.pt"):
                assert torch.load(path, weights_only=True)["format"]

    def finish(self) -> None:
        """Resume once more without a signal, and compare with the whole run."""
        done = self.command("name=stopped", "resume=auto")
        assert done.code == 0, done.out
        self.compare()

    def compare(self) -> None:
        """The stopped run is finished as the whole run is."""
        assert_equal(the_run(self.workspace, "whole"), the_run(self.workspace, "stopped"))
        assert batches(self.workspace, "stopped") == batches(self.workspace, "whole")


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/watched.py", "digits/phases.py", "events.py")
    script = workspace / "train.py"
    text, end = script.read_text(), "sys.exit(launch(work))"
    assert end in text
    script.write_text(
        "import events\n" + text.replace(end, "code = launch(work)\n    events.ended()\n    sys.exit(code)")
    )
    return workspace


@pytest.fixture
def stops(pytestconfig) -> int:
    return pytestconfig.getoption("stops")


def test_while_it_starts(server, workspace, stops):
    history = History(server, workspace, OPTIONS, "start")
    count = workspace / "count"
    history.command("name=counted", COUNT=str(count))
    handled, events = map(int, count.read_text().split())
    assert 0 < handled < events / 2
    # A resumed run has fewer steps left, and so fewer events than the one that was counted.
    late = sorted(history.draw.sample(range(handled + 1, events * 9 // 10), stops))
    for event in (*late, *sorted(history.draw.sample(range(1, handled), stops // 4))):
        code = history.stop(may_die=event <= handled, EVENT=event)
        assert code == 75 or event <= handled, f"{event} of {events}"
    history.finish()


def test_in_validation(server, workspace, stops):
    options = (*OPTIONS, "val_every_steps=1", "limit_val_batches=2")
    history = History(server, workspace, options, "validation")
    for _ in range(stops):
        history.stop(VALIDATION=history.draw.choice((1, 1, 2, 2, 3)))
    assert history.codes == [75] * stops
    history.finish()


def test_while_it_waits_for_a_worker(server, workspace, stops):
    add_watched_data(workspace)
    options = tuple(o for o in OPTIONS if o not in DATA)
    options = (*options, "data=watched", "batch_size=4", "limit_train_batches=25", "epochs=4")
    history = History(server, workspace, options, "worker")
    for _ in range(stops):
        history.stop(worker=True, READ=history.draw.randint(1, 12))
    assert history.codes == [75] * stops
    history.finish()


@pytest.mark.parametrize("twice", [False, True])
def test_while_it_saves(server, workspace, twice, stops):
    """Signals come while half of a file is written, and before the file or its folder is synchronised."""
    snippets.add(workspace, "digits/slow_saves.py")
    with open(workspace / "digits/phases.py", "a") as file:
        file.write("from . import slow_saves\n")
    history = History(server, workspace, (*OPTIONS, "save_every_steps=1", "keep_last=4", "epochs=12"), f"saves {twice}")
    for _ in range(stops):
        history.stop(twice=twice, SAVING=history.draw.randint(1, 5))
    assert (75 in history.codes) == (not twice)
    assert 0 not in history.codes
    history.finish()


def test_at_the_end(server, workspace, stops):
    """In the last step, the last validation, the last save, while the result is written, while the process ends."""
    history = History(server, workspace, (*OPTIONS, "log.curves=true"), "end")
    count = workspace / "count"
    history.command("name=counted", FROM="17", ENDED=str(count))
    events = int(count.read_text())
    assert events > 20
    near_end = workspace / "near end"
    done = history.command("name=stopped", AT="16", WITH="SIGTERM")
    assert done.code == 75, done.out
    shutil.copytree(workspace / "runs/stopped", near_end)
    for event in (1, 2, *sorted(history.draw.sample(range(3, events + 1), stops - 2))):
        code = history.stop(FROM=17, EVENT=event)
        history.finish() if code == 75 else history.compare()
        shutil.rmtree(workspace / "runs/stopped")
        shutil.copytree(near_end, workspace / "runs/stopped")
    assert {0, 75} == set(history.codes)


def test_two_signals_end_a_step_at_once(server, workspace, stops):
    history = History(server, workspace, (*OPTIONS, "save_every_steps=1"), "two")
    for _ in range(stops):
        step, event = history.draw.randint(0, 17), history.draw.randint(1, 3)
        history.stop(twice=True, FROM=step, EVENT=event)
    assert 75 not in history.codes
    assert any(code > 128 for code in history.codes)
    history.finish()


# ---------------------------------------------------------------- real processes


def batches_read(workspace: Path, name: str) -> int:
    path = workspace / f"{name}.batches"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_until(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def environment(workspace, monkeypatch) -> dict[str, str]:
    """The environment of commands that a test starts itself."""
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return settings | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": path}


def test_the_documented_loop_in_a_real_shell(server, workspace, environment):
    """`while python train.py resume=auto; [ $? -eq 75 ]; do :; done`, with signals from outside."""
    step = "        return super().training_step"
    slow = snippets.text("digits/phases.py").replace(step, f"        import time; time.sleep(0.01)\n{step}")
    (workspace / "digits/phases.py").write_text(slow)
    options = (*OPTIONS, "limit_train_batches=20", "batch_size=4", "save_every_epochs=0", "save_every_steps=null")
    history = History(server, workspace, options, "shell")
    arguments = " ".join(f"'{option}'" for option in (*options, "name=stopped", "resume=auto"))
    loop = f"while python train.py {arguments}; [ $? -eq 75 ]; do :; done"
    env = environment | {"BATCHES": str(workspace / "stopped.batches")}
    with open(workspace / "shell.log", "w") as log:
        shell = subprocess.Popen(["bash", "-c", loop], cwd=workspace, env=env, stdout=log, stderr=log)
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
    for by in history.draw.sample(SIGNALS, 2):
        wanted = batches_read(workspace, "stopped") + history.draw.randint(1, 12)
        wait_until(lambda: batches_read(workspace, "stopped") >= wanted, shell)  # noqa: B023 - called here
        (child,) = children.read_text().split()
        os.kill(int(child), getattr(signal, by))
        wait_until(lambda: children.read_text().split() != [child], shell)  # noqa: B023
    shell.wait()
    text = (workspace / "shell.log").read_text()
    assert text.count("Stopped by SIG") == 2, text
    assert "Traceback" not in text
    history.look()
    history.compare()


def test_two_at_once_never_take_one_folder(server, workspace):
    """In each pair, one command goes on. The other one waits, then goes on or finds the run finished."""
    history = History(server, workspace, OPTIONS, "pair")
    done = history.command("name=stopped", AT="2", WITH="SIGTERM")
    assert done.code == 75, done.out
    start = workspace / "start"
    shutil.copytree(workspace / "runs/stopped", start)
    began = (workspace / "stopped.batches").read_text()
    codes = []
    for _ in range(5):
        options = (*OPTIONS, "name=stopped", "resume=auto")
        env = {"BATCHES": str(workspace / "stopped.batches"), "WITH": "SIGTERM"}
        moments = history.draw.sample(range(4, 16), 2)
        pair = [server.start(workspace / "train.py", *options, AT=str(at), **env) for at in moments]
        results = [command.result() for command in pair]
        assert {r.code for r in results} <= {0, 75}, results
        codes += [r.code for r in results]
        history.look()
        processes = [line.split()[0] for line in (workspace / "stopped.batches").read_text().splitlines()]
        changes = [p for n, p in enumerate(processes) if n == 0 or processes[n - 1] != p]
        assert len(changes) == len(set(changes)), "two processes took turns"
        history.finish()
        shutil.rmtree(workspace / "runs/stopped")
        shutil.copytree(start, workspace / "runs/stopped")
        (workspace / "stopped.batches").write_text(began)
    assert 75 in codes


# As `Watched`, but for each sample, as several processes share a batch; stops come to rank 1 alone.
SAMPLES = """
import hashlib, os, signal, time
from .task import Classification

class Samples(Classification):
    def training_step(self, model, batch, ctx):
        if ctx.training:
            process = os.environ.get("MASTER_PORT", os.getpid())
            with open(os.environ["BATCHES"], "a") as file:
                for image in batch[0]:
                    file.write(f"{process} {ctx.step} {hashlib.sha256(image.numpy().tobytes()).hexdigest()}\\n")
            if os.environ.get("AT"):
                time.sleep(0.03)  # two processes vote on a stop after each step that takes so long
            if os.environ.get("AT") == str(ctx.step) and os.environ.get("RANK") == "1":
                os.kill(os.getpid(), getattr(signal, os.environ["WITH"]))
        return super().training_step(model, batch, ctx)
"""


def test_two_processes_are_stopped_killed_and_go_on(server, workspace, environment):
    (workspace / "digits/samples.py").write_text(SAMPLES)
    options = (*(o for o in OPTIONS if not o.startswith("task.")), "task._target_=.samples.Samples")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "train.py"]

    def torchrun(name: str, *overrides: str, **env: str) -> subprocess.CompletedProcess:
        env = environment | {"BATCHES": str(workspace / f"{name}.batches"), **env}
        command = [*launcher, *options, f"name={name}", *overrides]
        return subprocess.run(command, cwd=workspace, env=env, text=True, capture_output=True, timeout=300)

    def status(name: str) -> str:
        return json.loads((the_run(workspace, name) / "manifest.json").read_text())["status"]

    def samples(name: str) -> dict[int, list[str]]:
        return {step: sorted(digests) for step, digests in batches(workspace, name).items()}

    def together(name: str, *overrides: str) -> None:
        env = {"BATCHES": str(workspace / f"{name}.batches")}
        done = server.run_together(workspace / "train.py", *options, f"name={name}", *overrides, **env)
        assert done.code == 0, done.out

    together("whole")
    done = torchrun("killed", AT="9", WITH="SIGKILL")
    assert done.returncode != 0
    together("killed", "resume=auto")
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "killed"))
    assert samples("killed") == samples("whole")

    done = torchrun("stopped", AT="9", WITH="SIGTERM")
    assert status("stopped") == "stopped", done.stdout + done.stderr
    env = {"BATCHES": str(workspace / "stopped.batches")}
    alone = server.run(workspace / "train.py", *options, "name=stopped", "resume=auto", **env)
    assert alone.code == 0, alone.out
    assert "no longer bit-exact" in alone.out
    assert samples("stopped") == samples("whole")
    assert result(the_run(workspace, "stopped"))["steps"] == 18
