"""A run that lacks disk space, a permission, memory, a worker or data says so and loses nothing."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import assert_stopped_as_whole, rows, the_run

BASE = ("task._target_=.doing.Doing", "model=mlp", "epochs=2", "log.every=1", "save_every_steps=10")

# What binds other users does not bind root: so it gives up that power.
BOUND = """
import ctypes, os
if os.geteuid() == 0:
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
"""


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/doing.py")
    return workspace


@pytest.fixture
def bound(workspace):
    """Runs heed the permissions of files."""
    script = workspace / "train.py"
    script.write_text(script.read_text().replace("import sys\n", f"import sys\n{BOUND}", 1))


def can_mount() -> bool:
    """Whether this process holds Linux's CAP_SYS_ADMIN (bit 21)."""
    status = Path("/proc/self/status")
    held = re.search(r"^CapEff:\s*(\w+)", status.read_text() if status.exists() else "", re.MULTILINE)
    return held is not None and bool(int(held[1], 16) >> 21 & 1)


NEEDS_MOUNT = pytest.mark.skipif(not can_mount(), reason="mounting a tmpfs needs CAP_SYS_ADMIN")


@pytest.fixture
def small_disk(workspace):
    """The runs called "stopped" are on a disk of one MiB."""
    folder = workspace / "runs/stopped"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def told(done, code: int) -> str:
    """The sentence with which the run ended, without a traceback."""
    assert done.code == code, done.out
    assert "Traceback" not in done.out, done.out
    assert "Logging error" not in done.out
    assert "Exception" not in done.out
    return done.last


def status(workspace: Path) -> str:
    return json.loads((the_run(workspace, "stopped") / "manifest.json").read_text())["status"]


@NEEDS_MOUNT
@pytest.mark.parametrize("free", [0, 30_000])
@pytest.mark.parametrize("logger", ["none", "tensorboard"])
def test_a_full_disk(train, workspace, small_disk, free, logger):
    options = (*BASE, f"logger={logger}")
    assert train(*options, "name=whole").code == 0
    done = train(*options, "name=stopped", AT="12", DO="fill", ON=str(small_disk), FREE=str(free))
    assert "No space left" in told(done, 74)
    assert [p.name for p in (the_run(workspace, "stopped") / "checkpoints").iterdir()] == ["step-00000010.pt"]
    again = train("resume=auto", *options, "name=stopped")
    assert "No space left" in told(again, 74), "the disk is full still"
    (small_disk / ".filler").unlink()
    done = train("resume=auto", *options, "name=stopped")
    assert done.code == 0, done.out
    assert "from step 10" in done.out
    assert_stopped_as_whole(workspace)


@NEEDS_MOUNT
@pytest.mark.parametrize("do", ["fill", "fill_for_long"])
def test_a_save_without_room_names_what_it_needs(train, workspace, small_disk, do):
    """This holds too if the log runs out of space first, because of what the save has written."""
    done = train(*BASE, "logger=none", "name=stopped", AT="12", DO=do, ON=str(small_disk), FREE="60000")
    sentence = told(done, 74)
    assert "cannot be written: No space left" in sentence
    assert re.search(r"It needs about 0\.1 MiB, 0\.[01] MiB are free", sentence)
    assert status(workspace) == "save failed"


@pytest.mark.parametrize("file", ["metrics.jsonl", "train.log", "tensorboard/*"])
def test_a_file_that_cannot_grow(train, workspace, file):
    options = (*BASE, f"logger={'tensorboard' if 'tensorboard' in file else 'none'}")
    assert train(*options, "name=whole").code == 0
    options = (*options, "name=stopped")
    done = train(*options, AT="12", DO="limit", ON=file)
    assert "too large" in told(done, 74)
    done = train(*options, "resume=auto")
    assert done.code == 0, done.out
    assert "from step 10" in done.out
    assert_stopped_as_whole(workspace)
    assert [row["step"] for row in rows(the_run(workspace, "stopped")) if "train/loss" in row] == [*range(1, 41)]


def test_a_checkpoint_folder_that_becomes_read_only(train, workspace, bound):
    options = (*BASE, "logger=none")
    assert train(*options, "name=whole").code == 0
    sentence = told(train(*options, "name=stopped", AT="12", DO="unwritable"), 74)
    assert ".pt cannot be written" in sentence
    assert "Permission denied" in sentence
    (the_run(workspace, "stopped") / "checkpoints").chmod(0o755)
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("parent", [".", "runs"])
def test_no_place_for_a_new_run(train, workspace, bound, parent):
    (workspace / "runs").mkdir()
    (workspace / parent).chmod(0o555)
    if parent == ".":
        (workspace / "runs").rmdir()
    done = train(*BASE, "logger=none")
    (workspace / parent).chmod(0o755)
    assert "No run folder can be made" in told(done, 2)
    assert "Permission denied" in done.last
    assert len(done.out.strip().splitlines()) == 1
    assert not list((workspace / "runs").glob("*"))


def test_auto_says_that_it_may_not_list_the_runs(train, workspace, bound):
    """It must not begin a new run as if there were none."""
    assert train(*BASE, "name=stopped", "max_steps=2").code == 0
    runs = workspace / "runs/stopped"
    runs.chmod(0o300)
    try:
        assert "runs/stopped cannot be read: Permission denied" in told(train(*BASE, "name=stopped", "resume=auto"), 2)
    finally:
        runs.chmod(0o755)
    assert len(list(runs.iterdir())) == 1


def test_a_run_folder_that_is_read_only(train, workspace, bound):
    options = (*BASE, "logger=none", "name=stopped")
    assert train(*options, "max_minutes=0.0001").code == 75
    folder = the_run(workspace, "stopped")
    places = [folder, folder / "checkpoints"]
    files = [p for p in folder.rglob("*") if p.is_file()]
    before = {p: p.read_bytes() for p in files}
    for path in (*files, *places):
        path.chmod(0o555)
    done = train(f"resume={folder}")
    assert "cannot be written" in told(done, 2)
    assert len(done.out.strip().splitlines()) == 1
    for path in files:  # the files can be written, but none can be made
        path.chmod(0o644)
    assert "cannot be written" in told(train(f"resume={folder}"), 74)
    for path in places:
        path.chmod(0o755)
    assert {p: p.read_bytes() for p in before if p.suffix == ".pt"} == {
        p: data for p, data in before.items() if p.suffix == ".pt"
    }
    assert train(f"resume={folder}", "max_minutes=null").code == 0


@pytest.fixture
def samples(workspace) -> tuple[str, ...]:
    snippets.add(workspace, "digits/samples.py")
    (workspace / "configs/data/samples.yaml").write_text("_target_: .samples.Samples\n")
    return ("data=samples", "logger=none", "batch_size=16", "workers=2")


def test_a_killed_worker(train, workspace, samples):
    options = (*BASE, *samples, "val_every_epochs=0")
    assert train(*options, "name=whole").code == 0
    done = train(*options, "name=stopped", KILLED="77")
    sentence = told(done, 1)
    assert "loader worker was killed" in sentence
    assert "workers" in sentence
    folder = the_run(workspace, "stopped")
    assert f"resume=runs/stopped/{folder.name}" in sentence
    assert status(workspace) == "failed"
    done = train(f"resume={folder}")
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)


def test_changed_data_can_be_allowed(train, workspace, samples):
    options = (*BASE, *samples, "name=stopped")
    assert train(*options, "max_minutes=0.0001").code == 75
    folder = the_run(workspace, "stopped")
    (workspace / "version").write_text("2")
    before = {p: p.read_bytes() for p in folder.rglob("*.pt")}
    assert "allow_changed_data=true" in told(train(f"resume={folder}", "max_minutes=null"), 2)
    assert {p: p.read_bytes() for p in folder.rglob("*.pt")} == before
    done = train(f"resume={folder}", "max_minutes=null", "allow_changed_data=true")
    assert done.code == 0, done.out
    assert "no longer bit-exact: data 1 → 2" in done.out


def test_out_of_memory_names_the_batch_size(train, workspace):
    options = (*BASE, "logger=none", "batch_size=32", "accumulate=2")
    assert train(*options, "name=whole").code == 0
    sentence = told(train(*options, "name=stopped", AT="12", DO="exhaust"), 1)
    assert "batch_size=32" in sentence
    assert "accumulate=2" in sentence
    assert "peak 0.0 GiB" in sentence
    assert status(workspace) == "failed"
    assert train(*options, "name=stopped", "resume=auto").code == 0
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("do", ["vary", "vary_elsewhere"])
def test_a_first_step_that_does_not_repeat(train, workspace, do):
    sentence = told(train(*BASE, "logger=none", AT="0", DO=do), 2)
    assert sentence.startswith("put_ cannot be computed deterministically")
    assert "deterministic=warn" in sentence
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize("do", ["vary", "vary_elsewhere"])
def test_an_operation_that_does_not_repeat(train, workspace, do):
    sentence = told(train(*BASE, "logger=none", "name=stopped", AT="12", DO=do), 1)
    assert sentence.startswith("put_ cannot be computed deterministically")
    assert "deterministic=warn" in sentence
    assert "doing.py" in (the_run(workspace, "stopped") / "train.log").read_text(), "where it is"
    assert train(*BASE, "logger=none", "name=warned", "deterministic=warn", AT="12", DO="vary").code == 0
