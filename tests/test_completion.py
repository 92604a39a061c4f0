"""Completion in real shells, with the lines of docs/editors.md."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import pages
from helpers.template import ROOT

PAGE = (ROOT / "docs/editors.md").read_text(encoding="utf-8").partition("## Completion in the shell")[2]
LINES = dict(reversed(pages.blocks(PAGE.partition("\n## ")[0])))
START = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"], "fish": ["fish", "--no-config"]}
OPTIMIZERS = {"optimizer=adam", "optimizer=adamw", "optimizer=sgd"}


def environment(**more: str) -> dict[str, str]:
    """One in which `python` is the interpreter of the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TERM": "dumb", **more}


class Terminal:
    """An interactive shell."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.keyboard, place = pty.openpty()
        streams = {"stdin": place, "stdout": place, "stderr": place}
        env = environment(HOME=str(folder), ZDOTDIR=str(folder))
        self.process = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **streams)
        os.close(place)

    def type(self, text: str, until: str) -> str:
        """Return what the terminal shows from now on, up to `until`."""
        os.write(self.keyboard, text.encode())
        seen, deadline = "", time.monotonic() + 60
        while until not in seen:
            assert time.monotonic() < deadline, f"no {until!r} in {seen!r}"
            if select.select([self.keyboard], [], [], 0.1)[0]:
                seen += os.read(self.keyboard, 4096).decode(errors="replace")
        return seen.replace("\a", "")  # the bell

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)


@pytest.fixture
def terminal(workspace):
    """`terminal(shell)`: one in the project that has read the lines of the page."""
    opened = []

    def terminal(shell: str) -> Terminal:
        opened.append(Terminal(START[shell], workspace))
        opened[-1].type(f"{LINES[shell]}echo rea''dy\n", "ready\r\n")
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


def needs(shell: str):
    return pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}"))


def test_the_page_has_lines_for_each_shell():
    assert LINES.keys() == START.keys()


@pytest.mark.parametrize("shell", [needs("bash"), needs("zsh")])
@pytest.mark.parametrize("script", ["train.py", "find_lr.py"])
def test_tab_shows_keys_and_choices(terminal, shell, script):
    shown = terminal(shell).type(f"python {script} optimizer=\t\t", "optimizer=sgd")
    assert {word for word in shown.split() if word.startswith("optimizer=")} == {*OPTIMIZERS, "optimizer="}
    assert "epochs=" in terminal(shell).type(f"python {script} epo\t", "epochs=")


@pytest.mark.parametrize("shell", [needs("bash"), needs("zsh")])
def test_tab_runs_no_other_script(terminal, workspace, shell):
    """The lines of Hydra 1.3 run any script after `python`, which may train or delete."""
    (workspace / "other.py").write_text("open('ran', 'w')\n")
    own = terminal(shell)
    own.type("python other.py a\t\t\x15echo do''ne\n", "done\r\n")
    assert not (workspace / "ran").exists()


@pytest.mark.parametrize("shell", [needs("fish")])
def test_fish_shows_keys_and_choices(workspace, shell):
    def completed(typed: str) -> set[str]:
        lines = f"{LINES[shell]}complete -C '{typed}'"
        done = subprocess.run(
            [*START[shell], "-c", lines], cwd=workspace, env=environment(), capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert completed("python train.py optimizer=") == OPTIMIZERS
    assert "epochs=" in completed("python train.py epo")


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_only_choices_are_completed(server, project, shell):
    """Not the name of the section that takes a class in place of a choice."""
    done = server.run(project / "train.py", "-sc", f"query={shell}", COMP_LINE="python train.py optimizer=")
    assert (done.code, set(done.out.split())) == (0, OPTIMIZERS)


def test_a_glob_finds_the_choices_alone(train):
    done = train("-m", "optimizer=glob(*)", "dry_run=true", "logger=none", "model=mlp")
    assert done.code == 0, done.out
    assert done.out.count("The schedule: ") == len(OPTIMIZERS)
