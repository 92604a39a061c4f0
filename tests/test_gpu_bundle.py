"""The folder for a GPU machine is small and whole, and its results are on the disk as soon as they are known."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from helpers.template import POINTS, ROOT

from benchmarks.on_gpu.__main__ import PARTS
from benchmarks.on_gpu.answers import tables
from benchmarks.on_gpu.fast import Fast

pytestmark = pytest.mark.xdist_group("gpu_bundle")  # one worker makes the folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "gpu"
    command = [sys.executable, "-m", "benchmarks.gpu_bundle", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"python {folder.name}/run.py" in done.stdout
    return folder


def run(bundle: Path, out: Path, *arguments: str, path: str = "/nowhere") -> list[dict]:
    """The rows of the results. Without `path`, the command finds no other program."""
    env = {"PATH": path, "OUT": str(out), "CUDA_VISIBLE_DEVICES": "", "HOME": os.environ["HOME"]}
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


TWO_TESTS = """
import copier, pytest
pytestmark = pytest.mark.cuda
def test_copier():
    assert "packages" in copier.__file__
def test_that_fails():
    assert False
"""


def test_it_finds_the_tests_that_need_a_gpu(bundle, tmp_path):
    """They are skipped here, one by one. Also where Copier is installed, they take the projects of the folder."""
    more = bundle / "repository/tests/test_copier.py"
    more.write_text(TWO_TESTS)
    rows = run(bundle, tmp_path, "tests")
    more.unlink()
    _, failed, told, _ = (row["cells"] for row in rows)
    assert failed == {"test": "tests/test_copier.py::test_that_fails"}
    assert told["all pass"] == "no"
    skipped = re.match(r"1 failed, 1 passed, (\d+) skipped\b", told["pytest"])
    assert int(skipped[1]) > 40
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "logs.zip"}
    assert zipfile.ZipFile(tmp_path / "logs.zip").namelist() == ["tests.txt"]


def test_without_a_gpu_it_says_so_at_once(bundle, tmp_path):
    env = {**os.environ, "OUT": str(tmp_path / "out"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(bundle / "run.py")], capture_output=True, text=True, env=env)
    assert (done.returncode, "torch finds no GPU. Add --small" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_command_answers_and_the_page_shows_it(bundle, tmp_path):
    rows = run(bundle, tmp_path, "saving")
    assert [row["part"] for row in rows] == ["Machine", "A checkpoint of 16 MiB: how long training waits", "The end"]
    (saving,) = (table for table in tables(tmp_path / "results.jsonl") if "checkpoint" in table.title)
    assert list(saving.columns) == ["torch.save", "ours", "ratio"]
    assert saving.rows[0][2].endswith("×")


@pytest.mark.thorough
@pytest.mark.parametrize("part", PARTS)
def test_each_part_runs_to_its_end(bundle, tmp_path, part):
    rows = run(bundle, tmp_path, "--limit=3000", part, path=os.environ["PATH"])  # a compiler is there
    assert (rows[-1]["part"], len(rows) > 2) == ("The end", True)
    cells = " ".join(str(cell) for row in rows[:-1] for cell in [row["part"], *row["cells"].values()])
    assert not re.search("failed|did not|Error|no time", cells)


def script(text: str, *arguments: object, **env: str) -> list[dict]:
    """The rows that a script of the benchmarks adds to results.jsonl of its first argument."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **env}, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (arguments[0] / "results.jsonl").read_text().splitlines()]


SLOW = """
import sys, time
from pathlib import Path
from benchmarks.on_gpu.answers import Answers
answers = Answers(Path(sys.argv[1]), limit=62, began=time.monotonic() - 60)
answers.say("A part", known="yes")
answers.start(None, "-c", "").wait()  # it has ended by itself
answers.start(None, "-c", "import time; print('started', flush=True); time.sleep(60)")
time.sleep(60)
"""


def test_it_ends_in_time_with_what_is_known(tmp_path):
    """What it starts ends, too: it would hold the output."""
    began = time.monotonic()
    rows = script(SLOW, tmp_path)
    assert time.monotonic() - began < 30
    assert [row["cells"] for row in rows] == [{"known": "yes"}, {"told": "the time is over"}]
    assert rows[0]["seconds"] >= 60, "the time before counts"


LATE = """
import sys
from pathlib import Path
from benchmarks.on_gpu.answers import Answers
from benchmarks.on_gpu.right import Right
answers = Answers(Path(sys.argv[1]), limit=60)
right = Right(answers, Path(sys.argv[2]), "cpu", small=True)
right.run([], [], seconds=1)
answers.say("A command", code=right._command("slow", "-c", "import time; time.sleep(60)", limit=150)[0])
answers.end("all parts were tried")
"""


def test_parts_that_measure_nothing_leave_time_for_those_that_do(tmp_path):
    (tmp_path / "projects").mkdir()
    assert script(LATE, tmp_path / "out", tmp_path / "projects")[0]["cells"] == {"code": None}


RACE = """
import sys
from pathlib import Path
from benchmarks.on_gpu.answers import Answers
from benchmarks.on_gpu.fast import Fast, Race
fast = Fast(Answers(Path(sys.argv[1]), limit=100), "cpu", small=True)
settings = {"inputs": 4, "hidden": [4], "batch": 4, "steps": 3, "margin": 1, "device": "cpu"}
fast._race(Race("A race: of two", {"bare": ("bare", ()), "none": ("absent", ())}, settings, 4, 1))
fast.answers.end("all parts were tried")
"""


def test_what_contestants_print_is_kept(bundle, tmp_path):
    rows = script(RACE, tmp_path, RENDERED=str(bundle / "projects/image_classification"))
    assert "did not run: " in rows[2]["cells"]["time"]
    logs = zipfile.ZipFile(tmp_path / "logs.zip")
    assert sorted(logs.namelist()) == ["A race bare.txt", "A race none.txt"]
    assert b"No module named benchmarks.peers.absent" in logs.read("A race none.txt")


def test_models_are_compiled_before_speed_is_measured():
    """Each contestant whose model is compiled, in the parts that are asked for."""
    fast = Fast(None, "cpu", small=True)
    jobs = [(module, arguments) for _, module, arguments in (job.args for job in fast.ahead(PARTS))]
    assert [module for module, _ in jobs] == ["images", "ours_images", "images", "ours_epochs", "images", "ours_images"]
    assert all({"compile", "compile=true", "experiment=fast"} & {*arguments} for _, arguments in jobs)
    assert len(fast.ahead(["steps", "resnet50"])) == 2
