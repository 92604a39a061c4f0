"""Run many `python train.py` commands, and import torch only once.

A server process imports torch once, computes nothing, and forks for every command; the child runs
the script as `__main__` like a fresh interpreter would. What a command imports, and when, is tested
with real processes in test_launch.py.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    """stdout and stderr together."""

    @property
    def last(self) -> str:
        """The last line."""
        lines = self.out.strip().splitlines()
        return lines[-1] if lines else ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Command:
    """A running `python SCRIPT ARGUMENTS`."""

    def __init__(self, server: "Server", pid: int, log: Path) -> None:
        self.server, self.pid, self.log = server, pid, log

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until the output holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.log.read_text(errors='replace')}"
            time.sleep(0.01)

    def result(self) -> Result:
        """Wait for the end. The code of a killed process is 128 + the signal, as in a shell."""
        status = self.server.ask({"wait": self.pid})["status"]
        code = os.waitstatus_to_exitcode(status)
        return Result(code if code >= 0 else 128 - code, self.log.read_text(errors="replace"))


class Server:
    def __init__(self, folder: Path, prepare: str = "", **variables: str) -> None:
        """`prepare` is Python that the server runs once, such as imports that all commands share."""
        self.folder, self.count = folder, 0
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env |= {"OMP_NUM_THREADS": "1", **variables}
        self.process = subprocess.Popen(
            [sys.executable, __file__, prepare], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, question: dict[str, object]) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer

    def start(self, script: Path, *arguments: str, cwd: Path | None = None, **env: str) -> Command:
        if not any(argument.startswith("device=cuda") for argument in arguments):
            env = {"CUDA_VISIBLE_DEVICES": "", **env}  # what is tested is the same on every machine
        self.count += 1
        log = self.folder / f"{self.count}.log"
        log.touch()
        question = {"script": str(script), "arguments": arguments, "log": str(log), "env": env}
        pid = self.ask({**question, "cwd": str(cwd or script.parent)})["pid"]
        return Command(self, pid, log)

    def run(self, script: Path, *arguments: str, cwd: Path | None = None, **env: str) -> Result:
        return self.start(script, *arguments, cwd=cwd, **env).result()

    def start_together(
        self, script: Path, *arguments: str, places: Sequence[dict[str, str]] = ({}, {}), **env: str
    ) -> list[Command]:
        """Start a command in several processes on the CPU, with the variables that torchrun sets.

        places: more variables of each process.
        """
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(len(places)), **env}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **place} for rank, place in enumerate(places)]
        return [self.start(script, *arguments, **env, **rank) for rank in ranks]

    def run_together(self, script: Path, *arguments: str, processes: int = 2, **env: str) -> Result:
        """Run a command in several processes."""
        commands = self.start_together(script, *arguments, places=[{}] * processes, **env)
        results = [command.result() for command in commands]
        return Result(max(result.code for result in results), "".join(result.out for result in results))

    def run_tests(self, project: Path, *arguments: str) -> Result:
        """Run a project's own tests, as `python -m pytest *arguments` does."""
        script = project / "run_tests.py"
        script.write_text("import sys, pytest\nsys.exit(pytest.main())\n")
        done = self.run(script, "-q", "-p", "no:cacheprovider", *arguments)
        script.unlink()
        return done

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _child(question: dict[str, object]) -> None:
    log = os.open(str(question["log"]), os.O_WRONLY | os.O_APPEND)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, log), (2, log)):
        os.dup2(source, target)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(question["env"])  # type: ignore[call-overload]
    os.chdir(str(question["cwd"]))
    script = str(question["script"])
    sys.argv = [script, *question["arguments"]]  # type: ignore[misc]
    package = os.path.dirname(script) if os.path.basename(script) == "__main__.py" else None
    sys.path[0] = os.path.dirname(package or script)
    code = 0
    try:
        if package is not None:  # as `python -m PACKAGE` does
            runpy.run_module(os.path.basename(package), run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # what an interpreter would print, before this copy of the server ends
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import hydra  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import torch
    import torch._dynamo
    import torch.utils.data
    import torch.utils.tensorboard  # noqa: F401
    import torchvision  # noqa: F401

    exec(sys.argv[1], {})
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = {"status": os.waitpid(question["wait"], 0)[1]}
        else:
            pid = os.fork()
            if pid == 0:
                _child(question)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
