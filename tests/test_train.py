"""Whole runs of a rendered project: what they print, leave behind and repeat."""

import json
import subprocess
import sys

import pytest
from helpers.runs import logged, result, rows, the_run

QUICK = ("epochs=2", "logger=none")


def test_the_default_project_learns_digits(train, workspace):
    done = train()
    assert done.code == 0, done.out
    folder = the_run(workspace)
    assert result(folder)["best"] >= 0.98
    assert result(folder)["weights_sha256"][:16] in done.last
    assert f"runs/default/{folder.name}" in done.last
    assert "tensorboard --logdir runs/default\n" in done.out


def test_a_run_folder_holds_what_the_contract_names(train, workspace):
    assert train("epochs=3", "keep_last=2", "log.every=7").code == 0
    folder = the_run(workspace)
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    files = {"config.yaml", "manifest.json", "metrics.jsonl", "train.log", "curves.png"}
    assert names == files | {"tensorboard", "checkpoints"}
    assert sorted(p.name for p in (folder / "checkpoints").iterdir())[0] == "best.pt"
    assert len(list((folder / "checkpoints").glob("step-*.pt"))) == 2

    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("command", "overrides", "template", "git", "fingerprint", "status", "result"):
        assert key in manifest
    assert manifest["overrides"] == ["epochs=3", "keep_last=2", "log.every=7"]
    for key in ("versions", "machine", "device", "threads", "world_size", "data"):
        assert key in manifest["fingerprint"]

    steps = manifest["result"]["steps"]
    per_epoch = steps // 3
    log_points = [row for row in rows(folder) if "train/loss" in row]
    expected = {s for s in range(1, steps + 1) if s % 7 == 0 or s % per_epoch == 0}
    assert {row["step"] for row in log_points} == expected
    assert all({"train/acc", "lr/all", "time/step", "time/data"} <= row.keys() for row in log_points)
    assert sum("train_epoch/loss" in row for row in rows(folder)) == 3
    assert [row["step"] for row in rows(folder) if "val/acc" in row] == [per_epoch * e for e in (1, 2, 3)]


def test_a_validation_before_the_first_step(train, workspace):
    short = ("epochs=2", "limit_train_batches=3", "logger=none")
    assert train(*short, "val_at_start=true", "name=with").code == 0
    assert train(*short, "name=without").code == 0
    first, *later = [row for row in logged(the_run(workspace, "with")) if "val/acc" in row]
    assert (first["step"], first["epoch"]) == (0, 0)
    assert first["val/acc"] < 0.3
    assert later == [row for row in logged(the_run(workspace, "without")) if "val/acc" in row]
    hashes = {result(the_run(workspace, name))["weights_sha256"] for name in ("with", "without")}
    assert len(hashes) == 1


def test_event_files_hold_what_metrics_jsonl_holds(train, workspace):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("epochs=2").code == 0
    folder = the_run(workspace)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for tag in ("train/loss", "train_epoch/acc", "val/acc", "lr/all"):
        mine = [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in rows(folder) if tag in row]
        assert [(e.step, e.value) for e in events.Scalars(tag)] == mine


def test_equal_runs_are_equal_and_logging_changes_nothing(train, workspace):
    assert train(*QUICK, "name=a").code == 0
    assert train(*QUICK, "name=b").code == 0
    assert train(*QUICK, "name=c", "log.every=3", "val_every_steps=5", "save_every_steps=4", "workers=2").code == 0
    assert train(*QUICK, "name=d", "seed=1").code == 0
    a, b, c, d = (the_run(workspace, name) for name in "abcd")
    assert result(a)["weights_sha256"] == result(b)["weights_sha256"] == result(c)["weights_sha256"]
    assert result(a)["weights_sha256"] != result(d)["weights_sha256"]
    assert logged(a) == logged(b)
    epochs = [{k: v for k, v in row.items() if k.startswith("train_epoch/")} for row in rows(a)]
    other = [{k: v for k, v in row.items() if k.startswith("train_epoch/")} for row in rows(c)]
    assert [row for row in epochs if row] == [row for row in other if row]


def test_multirun(train, workspace):
    done = train("-m", "lr=0.1,0.01", "epochs=1", "logger=none")
    assert done.code == 0, done.out
    folders = sorted(p for p in (workspace / "runs/default").iterdir() if not p.name.startswith("."))
    assert [p.name[-2:] for p in folders] == ["_0", "_1"]
    lrs = [json.loads((p / "manifest.json").read_text())["overrides"][0] for p in folders]
    assert lrs == ["lr=0.1", "lr=0.01"]


def test_a_failed_job_does_not_end_a_sweep(train, workspace):
    done = train("-m", "monitor=val/acc,val/nothing", "monitor_mode=max", "epochs=1", "logger=none")
    assert done.code == 2
    assert "Finished" in done.out
    assert "val/nothing" in done.out


def test_lr_of_a_row_is_the_one_its_step_used(train, workspace):
    assert train("epochs=1", "logger=none", "log.every=1", "scheduler=constant", "scheduler.warmup_steps=4").code == 0
    lrs = [row["lr/all"] for row in rows(the_run(workspace)) if "lr/all" in row]
    assert lrs[:6] == pytest.approx([0.003 * f for f in (0.2, 0.4, 0.6, 0.8, 1, 1)])


def test_paths_start_at_the_project_wherever_the_command_runs(train, workspace, tmp_path):
    assert train(*QUICK, cwd=tmp_path).code == 0
    assert the_run(workspace)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=mlp", "optimizer=sgd", "scheduler=multistep", "scheduler.milestones=[1]"),
        ("scheduler=step", "scheduler.step_size=1"),
        ("scheduler=constant", "loss.label_smoothing=0.1"),
        ("model=resnet18", "limit_train_batches=2"),
        ("model=torchvision", "model.name=mobilenet_v3_small", "limit_train_batches=2"),
        ("data=synthetic", "data.shape=[2,12,9]", "data.size=256", "data.classes=3"),
        ("accumulate=4", "clip_grad_norm=1.0", "ema_decay=0.9"),
        ("precision=bf16", "channels_last=true"),
        ("drop_last=false", "batch_size=100", "accumulate=4"),
        ("experiment=label_smoothing", "epochs=1"),
    ],
    ids=" ".join,
)
def test_choices_train(train, overrides):
    done = train("epochs=1", "logger=none", *overrides)
    assert done.code == 0, done.out


def test_a_reader_of_the_output_may_leave(workspace):
    command = f"{sys.executable} train.py epochs=2 logger=none | head -n 1"
    subprocess.run(["bash", "-c", command], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    assert result(the_run(workspace))["steps"] == 40
