"""No checkpoint that is torn, damaged, foreign or hostile is ever used, and none is lost without need."""

import errno
import json
import pickle
import random
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import logged, result, rows, the_run


def say(done):
    assert done.code == 0, done.out  # of a crashed interpreter it is 128 + the signal
    return json.loads(done.last)


@pytest.fixture
def two_checkpoints(train, workspace):
    """Small ones, so that every part of the file is hit."""
    done = train("model=mlp", "model.hidden=[4]", "optimizer=adamw", "ema_decay=0.9", "save_every_steps=5", "epochs=1")
    assert done.code == 0, done.out
    folder = the_run(workspace) / "checkpoints"
    return folder / "step-00000015.pt", folder / "step-00000020.pt"


def test_no_damage_is_loaded(server, workspace, two_checkpoints):
    script = workspace / "damages.py"
    snippets.add(workspace, "damages.py")
    seen = say(server.run(script, *map(str, two_checkpoints), "1000", "checkpoint"))
    assert sum(kind["wrong"] for kind in seen.values()) == 0, seen
    assert sum(sum(kind.values()) for kind in seen.values()) == 1000
    assert all(kind["refused"] for name, kind in seen.items() if name != "append"), seen
    seen = say(server.run(script, *map(str, two_checkpoints), "bits", "checkpoint"))
    assert seen["bit"]["wrong"] == 0
    assert seen["bit"]["refused"] > 1000
    plain = say(server.run(script, *map(str, two_checkpoints), "100", "plain"))
    assert plain["flip"]["wrong"] > 0, "these damages would be refused by anything"


def test_an_error_of_the_disk_is_no_damage(engine, two_checkpoints, monkeypatch):
    """zipfile takes some of them for a file that is not an archive. One that passes does no harm."""
    checkpoint, failures = engine("run.checkpoint"), [zipfile.BadZipFile("File is not a zip file")]
    open_archive = zipfile.ZipFile

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    def opened(path):
        if failures:
            raise failures.pop()
        return open_archive(path)

    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", opened)
    assert checkpoint.load(two_checkpoints[0])["step"] == 15
    failures += 2 * [zipfile.BadZipFile("File is not a zip file")]
    monkeypatch.setattr(checkpoint, "open", fails, raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint.load(two_checkpoints[0])


def kill_while_saving(server, workspace: Path, how: str, times: int) -> dict:
    saving, left, folders = workspace / "saving.py", workspace / "left.py", workspace / how
    snippets.add(workspace, "saving.py", "left.py")
    rng = random.Random(0)
    for number in range(times):
        folder = folders / str(number)
        folder.mkdir(parents=True)
        run = server.start(saving, str(folder), how)
        deadline = time.monotonic() + 60
        while not (folder / "saved").exists() or not (folder / "saved").stat().st_size:
            assert time.monotonic() < deadline, run.log.read_text()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        run.send(signal.SIGKILL)
        assert run.result().code == 137
    return say(server.run(left, str(folders)))


def test_kills_while_saving(server, workspace):
    seen = kill_while_saving(server, workspace, "saver", 200)
    assert {k: v for k, v in seen.items() if k != "strays"} == {"unusable": 0, "torn": 0, "lost": 0, "left": []}
    assert seen["strays"] > 20, "the kills came between the saves"
    assert kill_while_saving(server, workspace, "naive", 20)["unusable"] > 0, "these kills harm no way to save"


BASE = (
    "task._target_=.stopping.Stopping", "model=mlp", "epochs=2", "logger=none", "log.every=6", "save_every_steps=5",
    "keep_last=2",
)  # fmt: skip


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/stopping.py")
    return workspace


@pytest.fixture
def stopped(train, workspace) -> Path:
    """A run stopped after its 28th step, with checkpoints of steps 25 and 28. The run "whole" was not stopped."""
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="27", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    assert names(folder) == ["best.pt", "step-00000025.pt", "step-00000028.pt"]
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


def twin(workspace: Path, folder: Path, name: str) -> Path:
    """A copy of a run under another name."""
    return shutil.copytree(folder, workspace / "runs" / name / folder.name)


def ends_as_whole(workspace: Path, folder: Path) -> None:
    whole = the_run(workspace, "whole")
    assert result(folder) == result(whole)
    assert logged(folder) == logged(whole)


def hole(data: bytes) -> bytes:
    return data[:4096] + bytes(4096) + data[8192:]


def truncated(data: bytes) -> bytes:
    return data[:-1000]


def scrambled(data: bytes) -> bytes:
    return data[:2000] + data[4000:6000] + data[2000:4000] + data[6000:]


def emptied(data: bytes) -> bytes:
    return b""


def backwards(data: bytes) -> bytes:
    """Make the archive name a place before its start."""
    end = data.rindex(b"PK\6\6") + 48  # where the directory starts, counted too high
    return data[: end + 3] + b"\1" + data[end + 4 :]


def test_a_damaged_newest_checkpoint_is_put_aside(train, workspace, stopped):
    for damage in (hole, truncated, scrambled, emptied, backwards):
        folder = twin(workspace, stopped, damage.__name__)
        newest = folder / "checkpoints/step-00000028.pt"
        newest.write_bytes(damage(newest.read_bytes()))
        done = train(f"resume={folder}", "save_every_steps=1000")
        assert done.code == 0, done.out
        assert "step-00000028.pt is damaged" in done.out
        assert "from step 25" in done.out
        assert "step-00000028.pt.damaged" in names(folder)
        ends_as_whole(workspace, folder)


def test_checkpoints_of_something_else_are_passed_over(train, workspace, stopped):
    """They stay, and do not count towards `keep_last`."""
    import torch

    assert train(*BASE, "model=cnn", "name=other", "max_steps=20").code == 0
    other = the_run(workspace, "other") / "checkpoints/step-00000020.pt"
    shutil.copy(other, stopped / "checkpoints/step-00000099.pt")
    torch.save(torch.nn.Linear(3, 3).state_dict(), stopped / "checkpoints/step-00000098.pt")
    with zipfile.ZipFile(stopped / "checkpoints/step-00000097.pt", "w") as archive:
        archive.writestr("report.txt", "no checkpoint at all")
    done = train(f"resume={stopped}", "keep_last=1", AT="34", WITH="SIGTERM")
    assert done.code == 75, done.out
    assert "step-00000099.pt belongs to another run (its model, name differ" in done.out
    assert "step-00000098.pt is not a checkpoint of a run" in done.out
    assert "step-00000097.pt cannot be loaded" in done.out
    strange = ["step-00000097.pt", "step-00000098.pt", "step-00000099.pt"]
    assert names(stopped) == ["best.pt", "step-00000035.pt", *strange]
    assert train(f"resume={stopped}").code == 0
    ends_as_whole(workspace, stopped)


class Opened:
    """Pickled, it opens a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_a_checkpoint_without_the_optimizers_state_is_passed_over(train, workspace, stopped):
    """The run would go on, and end with other weights."""
    import torch

    path = stopped / "checkpoints/step-00000028.pt"
    torch.save({**torch.load(path, weights_only=True), "optimizer": {}}, path)
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert "step-00000028.pt lacks the state of torch.optim.AdamW. It is not used." in done.out
    ends_as_whole(workspace, stopped)


def test_a_checkpoint_runs_no_code(train, workspace, stopped, tmp_path):
    import torch

    ran = tmp_path / "ran"
    good = torch.load(stopped / "checkpoints/step-00000028.pt", weights_only=True)
    hostile = tmp_path / "hostile.pt"
    torch.save({**good, "step": Opened(ran)}, hostile)
    for name in ("step-00000029.pt", "best.pt"):
        shutil.copy(hostile, stopped / "checkpoints" / name)
    (stopped / "checkpoints/step-00000030.pt").write_bytes(pickle.dumps(Opened(ran)))
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert not ran.exists()
    assert "step-00000029.pt holds more than tensors and plain values" in done.out
    assert "step-00000030.pt is damaged" in done.out
    ends_as_whole(workspace, stopped)
    torch.load(hostile, weights_only=False)["step"].close()
    assert ran.exists(), "this checkpoint would have run no code anyway"


def test_a_model_that_was_changed_is_refused_with_a_table(train, workspace, stopped):
    model = workspace / "digits/engine/models/mlp.py"
    text = model.read_text()
    changed = text.replace("classes))", "classes + 1))")
    changed = changed.replace("super().__init__()", "super().__init__()\n        self.extra = nn.Linear(2, 3)", 1)
    model.write_text(changed)
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file() and p.name != "train.log"}
    done = train(f"resume={stopped}")
    assert done.code == 2, done.out
    assert "extra.weight: missing in the checkpoint, (3, 2) in the model" in done.out
    assert "layers.4.weight: (10, 128) in the checkpoint, (11, 128) in the model" in done.out
    assert "Traceback" not in done.out
    assert {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file() and p.name != "train.log"} == before
    model.write_text(text)
    assert train(f"resume={stopped}").code == 0
    ends_as_whole(workspace, stopped)


def test_a_damaged_best_checkpoint_is_replaced(train, workspace, stopped):
    import torch

    best = stopped / "checkpoints/best.pt"
    best.write_bytes(hole(best.read_bytes()))
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert "best.pt is damaged" in done.out
    assert "best.pt.damaged" in names(stopped)
    assert torch.load(best, weights_only=True)["step"] == 40
    ends_as_whole(workspace, stopped)


def test_strays_are_swept(train, workspace, stopped):
    strays = [
        ".metrics.jsonl.tmp",
        ".config.yaml.tmp",
        "checkpoints/.step-00000030.pt.tmp",
        "checkpoints/.best.pt.tmp",
    ]
    for stray in strays:
        (stopped / stray).write_bytes(b"half")
    done = train(f"resume={stopped}")
    assert done.code == 0, done.out
    assert not any((stopped / stray).exists() for stray in strays)
    ends_as_whole(workspace, stopped)


def test_logs_of_a_killed_run_have_each_step_once(train, workspace):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = (*BASE, "logger=tensorboard", "log.every=1", "val_every_steps=7")
    assert train(*options, "name=whole").code == 0
    for at in ("4", "9", "22", "36", "38"):
        assert train(*options, "name=stopped", "resume=auto", AT=at, WITH="SIGKILL").code == 137
        second = int(time.time())  # event files are named by it, and read in the order of their names
        while int(time.time()) == second:
            time.sleep(0.01)
    folder = the_run(workspace, "stopped")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 36, "ep')
    assert train(*options, "name=stopped", "resume=auto").code == 0
    ends_as_whole(workspace, folder)
    assert [row["step"] for row in rows(folder) if "train/loss" in row] == list(range(1, 41))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert len(list((folder / "tensorboard").iterdir())) == 6
    for tag in ("train/loss", "train_epoch/acc", "val/acc", "lr/all"):
        mine = [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in rows(folder) if tag in row]
        assert [(e.step, e.value) for e in events.Scalars(tag)] == mine


# A logger that writes nothing but when it is told to.
HOLDING = """
from .engine.api import Logger


class Holding(Logger):
    def __init__(self, folder):
        self.path, self.held = folder / "held.txt", []

    def scalars(self, step, values):
        self.held.append(step)

    def flush(self):
        self.path.write_text(" ".join(map(str, self.held)))
"""


def test_what_was_logged_before_a_checkpoint_outlives_a_kill(train, workspace):
    (workspace / "digits/holding.py").write_text(HOLDING)
    (workspace / "configs/logger/holding.yaml").write_text("holding:\n  _target_: .holding.Holding\n")
    options = (*BASE, "logger=holding", "log.every=1", "save_every_steps=1")
    assert train(*options, "name=stopped", AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    saved = max(int(p.stem.removeprefix("step-")) for p in (folder / "checkpoints").glob("step-*.pt"))
    assert saved > 10
    assert [int(step) for step in (folder / "held.txt").read_text().split()][:saved] == list(range(1, saved + 1))
