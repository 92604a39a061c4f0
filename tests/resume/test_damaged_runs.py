"""A damaged file of a run is named, and the newest whole checkpoint is used."""

import os
import zipfile
from pathlib import Path

from helpers.runs import BASE, assert_stopped_as_whole, the_run


def test_a_checkpoint_is_plain_and_whole(train, workspace):
    import torch

    assert train(*BASE, "ema_decay=0.9").code == 0
    for path in (the_run(workspace) / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        keys = "format interface step epoch model ema optimizer scheduler scaler windows best pending config"
        assert state.keys() >= {*keys.split(), "fingerprint"}
        assert all(name in state["model"] for name in state["optimizer"])


def flip_a_bit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda i: i.file_size)
    with open(path, "r+b") as file:
        file.seek(info.header_offset + 200 + info.file_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", "save_every_steps=5", AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    newest = folder / "checkpoints/step-00000015.pt"
    flip_a_bit(newest)
    done = train(f"resume={folder}", "save_every_steps=5")
    assert done.code == 0
    assert "step-00000015.pt is damaged" in done.out
    assert_stopped_as_whole(workspace)


def test_no_whole_checkpoint_left(train, workspace):
    assert train(*BASE, "name=stopped", "save_every_steps=5", AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    for path in (folder / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    done = train(f"resume={folder}")
    assert done.code == 1
    assert "No checkpoint" in done.last
    assert "Traceback" not in done.out
    assert train(f"resume={folder}").code == 1, "not started anew either"


def test_damaged_files_of_a_run_are_named(train, workspace):
    assert train(*BASE, AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace)
    (folder / "metrics.jsonl").write_bytes(b"\xff{broken\n" + (folder / "metrics.jsonl").read_bytes())
    for name in ("manifest.json", "config.yaml"):
        good = (folder / name).read_bytes()
        (folder / name).write_text("{broken: [")
        done = train(f"resume={folder}")
        assert done.code == 2, done.out
        assert name in done.last
        assert len(done.out.strip().splitlines()) == 1
        (folder / name).write_bytes(good)
    assert train(f"resume={folder}").code == 0


def test_a_checkpoint_of_a_newer_format_is_left_alone(train, workspace):
    import torch

    options = ("name=stopped", "save_every_steps=5", "keep_last=2")
    assert train(*BASE, *options, AT="17", WITH="SIGKILL").code == 137
    folder = the_run(workspace, "stopped")
    newest = folder / "checkpoints/step-00000015.pt"
    state = torch.load(newest, weights_only=True)
    torch.save({**state, "format": 99}, newest)
    del state["windows"]
    torch.save(state, folder / "checkpoints/step-00000010.pt")
    done = train(f"resume={folder}", "save_every_steps=1000", "save_every_epochs=0", "keep_last=5")
    assert done.code == 1, done.out
    assert "has format 99" in done.out
    assert "has a wrong value or none at 'windows'" in done.out
    assert newest.exists()
