"""The folder for a GPU machine is small and whole, and its results are on the disk as soon as they are known."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.template import POINTS, ROOT

from benchmarks.on_gpu.answers import tables

pytestmark = pytest.mark.xdist_group("gpu_bundle")  # one worker makes the folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "gpu"
    command = [sys.executable, "-m", "benchmarks.gpu_bundle", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"python {folder.name}/run.py" in done.stdout
    return folder


def run(bundle: Path, out: Path, *arguments: str) -> list[dict]:
    """The rows of the results. The command finds neither git nor this environment's commands."""
    env = {"PATH": "/nowhere", "OUT": str(out), "CUDA_VISIBLE_DEVICES": "", "HOME": os.environ["HOME"]}
    command = [sys.executable, str(bundle / "run.py"), "--small", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=bundle.parent)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_it_is_small_and_whole(bundle):
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 << 20
    assert len(list((bundle / "projects").glob("*/train.py"))) == len(POINTS)
    assert {"hydra", "omegaconf", "antlr4", "yaml", "copier"} <= {path.name for path in (bundle / "packages").iterdir()}
    assert not [path for path in files if path.suffix == ".so"], "it would fit one version of Python alone"


def test_a_folder_that_exists_is_left_alone(bundle):
    command = [sys.executable, "-m", "benchmarks.gpu_bundle", str(bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{bundle} exists. Name a new folder.\n")


def test_it_finds_the_tests_that_need_a_gpu(bundle, tmp_path):
    """They are skipped here, one by one."""
    (told,) = (row["cells"] for row in run(bundle, tmp_path, "tests") if "marked `cuda`" in row["part"])
    assert told["all pass"] is True, told
    assert int(re.match(r"(\d+) skipped\b", told["pytest"])[1]) > 40


def test_the_command_answers_and_the_page_shows_it(bundle, tmp_path):
    rows = run(bundle, tmp_path, "saving")
    assert [row["part"] for row in rows] == ["Machine", "A checkpoint of 16 MiB: how long training waits", "The end"]
    (saving,) = (table for table in tables(tmp_path / "results.jsonl") if "checkpoint" in table.title)
    assert list(saving.columns) == ["torch.save", "ours", "ratio"]
    assert saving.rows[0][2].endswith("×")


SLOW = """
import sys, time
from pathlib import Path
from benchmarks.on_gpu.answers import Answers
answers = Answers(Path(sys.argv[1]), limit=2)
answers.say("A part", known="yes")
answers.start(None, "-c", "import time; print('started', flush=True); time.sleep(60)")
time.sleep(60)
"""


def test_it_ends_in_time_with_what_is_known(tmp_path):
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SLOW, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert time.monotonic() - began < 30, "its child is ended too, which holds the output"
    assert done.returncode == 0, done.stderr
    assert "started" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["cells"] for row in rows] == [{"known": "yes"}, {"told": "the time is over"}]
