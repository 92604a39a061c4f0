"""Weights & Biases and MLflow: every value once, and mistakes told before there is a run."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.event_files import events
from helpers.runs import result, rows, the_run


@pytest.mark.parametrize(
    ("package", "variable", "value"),
    [("wandb", "WANDB_ERROR_REPORTING", "false"), ("mlflow", "MLFLOW_DISABLE_TELEMETRY", "true")],
)
def test_a_package_finds_its_reports_switched_off_when_it_is_imported(workspace, package, variable, value):
    (workspace / f"{package}.py").write_text(f"import os\nraise SystemExit(os.environ.get({variable!r}))\n")
    command = [sys.executable, "-c", f"import digits.engine.loggers.{package}"]
    env = {k: v for k, v in os.environ.items() if k != variable}
    for own, wanted in (({}, value), ({variable: "mine"}, "mine")):
        done = subprocess.run(command, cwd=workspace, env={**env, **own}, capture_output=True, text=True)
        assert done.stderr == f"{wanted}\n"


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_told_before_there_is_a_run(train, workspace, package):
    (workspace / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})\n")
    done = train("epochs=1", f"logger={package}")
    assert (done.code, done.out.count("\n")) == (2, 1)
    assert done.last.endswith(f"needs the package '{package}'. Install it: uv add {package}")
    assert not (workspace / "runs/default").exists()


def wandb_records(folder: Path) -> Iterator:
    """The records of all offline files of a run, oldest first: LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        data, place, record = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:  # the end of a block
                place += 32768 - place % 32768
                continue
            size, kind = struct.unpack_from("<HB", data, place + 4)
            record += data[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):  # a whole record, or the last part of one
                yield Record.FromString(record)
                record = b""


def wandb_history(folder: Path) -> list[dict]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def same(mine: dict, other: dict) -> bool:
    return all(other.get(tag) == pytest.approx(value, rel=1e-12) for tag, value in mine.items() if tag != "epoch")


def test_wandb_offline(train, workspace, stopping):
    options = (*stopping, "logger=wandb", "logger.wandb.mode=offline", "tags=[paper,small]")
    assert train(*options, AT="35", WITH="SIGTERM").code == 75
    folder = the_run(workspace)
    done = train(*options, f"resume={folder}")
    assert done.code == 0, done.out
    assert "wandb:" not in done.out
    history = wandb_history(folder)
    values = [row for row in history if row.keys() & {"train/loss", "val/loss"}]
    assert len(values) == len(rows(folder))
    assert all(same(mine, row) for mine, row in zip(rows(folder), values, strict=True))
    assert [row["step"] for row in history if "val/predictions/_type" in row] == [20, 40, 60]
    assert len({record.run.run_id for record in wandb_records(folder) if record.run.run_id}) == 1
    config = {
        update.key: json.loads(update.value_json) for record in wandb_records(folder) for update in record.config.update
    }
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert {tag for record in wandb_records(folder) for tag in record.run.tags} == {"paper", "small"}


def test_wandb_has_every_step_after_a_kill(train, start, workspace, stopping):
    options = (*stopping, "logger=wandb", "logger.wandb.mode=offline", "log.images=0", "save_every_steps=20")
    killed = start(*options, AT="31", WITH="SIGSTOP")
    killed.wait_for("Epoch 2/3 [10/20]")
    (folder,) = (workspace / "runs/default").glob("2*")
    deadline = time.monotonic() + 60
    while not any(row.get("step") == 30 for row in wandb_history(folder)):
        assert time.monotonic() < deadline, "what was logged does not reach the file"
        time.sleep(0.1)
    killed.send(signal.SIGKILL)
    assert killed.result().code == 137
    assert train(*options, "resume=auto").code == 0
    seen: dict[int, float] = {}
    for row in wandb_history(folder):
        if "train/loss" in row:
            assert seen.setdefault(row["step"], row["train/loss"]) == row["train/loss"]
    assert seen == {row["step"]: row["train/loss"] for row in rows(folder) if "train/loss" in row}


@pytest.mark.parametrize(
    ("options", "said"),
    [((), "has no API key. Call `wandb login`"), (("logger.wandb.mode=ofline",), "mode=ofline is not one of online")],
)
def test_wandb_mistakes(train, workspace, options, said):
    done = train("logger=wandb", *options, WANDB_API_KEY="", HOME=str(workspace))
    assert done.code == 2, done.out
    assert said in done.last
    assert not (workspace / "runs/default").exists()


def test_mlflow_with_its_local_store(train, workspace, stopping):
    from mlflow.tracking import MlflowClient

    options = (*stopping, "logger=[tensorboard,mlflow]", "save_every_steps=20", "lr=0.002", "tags=[paper]")
    assert train(*options, AT="31", WITH="SIGKILL").code == 137
    done = train(*options, "resume=auto")
    assert done.code == 0, done.out
    assert "mlflow" not in done.out.lower()
    folder = the_run(workspace)
    assert events(folder).Scalars("train/loss")
    client = MlflowClient(f"sqlite:///{workspace}/runs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "default"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == folder.name
    assert found.info.status == "FINISHED"
    assert found.data.params["lr"] == "0.002"
    assert found.data.tags["tags"] == "paper"
    assert found.data.metrics["best/acc"] == result(folder)["best"]
    for tag in {tag for row in rows(folder) for tag in row} - {"step", "epoch"}:
        history = sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, tag))
        mine = [(row["step"], row[tag]) for row in rows(folder) if tag in row]
        # Between the checkpoint and the kill, a time was measured that the resumed run measures anew.
        assert [step for step, _ in history] == [step for step, _ in mine]
        assert tag.startswith("time/") or history == mine
    shown = [f.path for f in client.list_artifacts(found.info.run_id, "val/predictions")]
    assert [Path(path).name for path in shown] == [f"step-{step:08}.png" for step in (20, 40, 60)]


def test_mlflow_mistakes(train, workspace):
    done = train("logger=mlflow", "logger.mlflow.tracking_uri=nonsense://x")
    assert done.code == 2, done.out
    assert "logger=mlflow cannot use nonsense://x" in done.out
    assert not (workspace / "runs/default").exists()
