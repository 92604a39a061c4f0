"""What loggers get of a run, read back by the library that shows it."""

import io
import json
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import snippets
from helpers.runs import result, rows, the_run
from PIL import Image

QUICK = ("epochs=2", "log.every=10", "log.graph=false", "log.images=0")


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = dict.fromkeys(("images", "scalars", "tensors", "histograms"), 0)
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance=everything)
    return read.Reload()


def text(read, tag: str) -> str:
    return read.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def pictures(read, tag: str) -> dict[int, np.ndarray]:
    """By step, uint8 [H, W, 3]."""
    return {e.step: np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in read.Images(tag)}


def hparams(read, tag: str):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    return HParamsPluginData.FromString(read.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)


@pytest.fixture(scope="module")
def run(project, server, tmp_path_factory) -> Path:
    """The folder of one run with everything on, to be read only."""
    import shutil

    workspace = tmp_path_factory.mktemp("loggers") / "digits"
    shutil.copytree(project, workspace, ignore=shutil.ignore_patterns("runs"))
    done = server.run(workspace / "train.py", "epochs=2", "log.histograms=10", "lr=0.002")
    assert done.code == 0, done.out
    for word in ("Warning", "Error", "No graph"):
        assert word not in done.out, done.out
    return the_run(workspace)


def test_every_value_is_in_one_event_of_its_step(run):
    read = events(run)
    for tag in {tag for row in rows(run) for tag in row} - {"step", "epoch"}:
        mine = [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in rows(run) if tag in row]
        assert [(e.step, e.value) for e in read.Scalars(tag)] == mine


def test_training_and_validation_of_one_value_are_in_one_chart(run):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    read = events(run)
    layout = Layout.FromString(read.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["acc"] == ["^train/acc$", "^train_epoch/acc$", "^val/acc$"]
    assert charts["loss"] == ["^train/loss$", "^train_epoch/loss$", "^val/loss$"]
    assert charts["lr"] == ["^lr/"]


def test_pictures_of_inputs_predictions_and_mistakes(run):
    read = events(run)
    steps = [row["step"] for row in rows(run) if "val/acc" in row]
    assert list(pictures(read, "train/inputs")) == [1]
    assert list(pictures(read, "val/predictions")) == steps
    assert set(pictures(read, "val/mistakes")) <= set(steps)
    (inputs,) = pictures(read, "train/inputs").values()
    # Four by four pictures of 8×8 pixels, each twelve times as large, a gap of 8 and a line of text.
    assert inputs.shape == (4 * (96 + 16 + 8) + 8, 4 * (96 + 8) + 8, 3)
    first = inputs[8 : 8 + 96, 8 : 8 + 96]
    assert (first == first[::12, ::12].repeat(12, 0).repeat(12, 1)).all()
    assert first.min() == 0, "black is black again"
    assert first.max() > 200
    below = inputs[8 + 96 : 8 + 96 + 16, 8 : 8 + 96]
    assert below.min() < 160, "the label is written there"

    def colours(tag: str) -> set:
        return {tuple(pixel) for shown in pictures(read, tag).values() for pixel in shown.reshape(-1, 3).tolist()}

    green, red = (27, 120, 55), (198, 40, 40)
    assert green in colours("val/predictions")
    assert red in colours("val/mistakes")
    assert green not in colours("val/mistakes")


def test_the_graph(run):
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph: GraphDef = events(run).Graph()
    names = " ".join(node.name for node in graph.node)
    assert "CNN" in names
    assert "Conv2d" in names
    assert any(node.op == "IO Node" for node in graph.node)


def test_histograms_of_weights_and_gradients(run):
    read = events(run)
    tags = read.Tags()["histograms"]
    weights = [tag for tag in tags if tag.startswith("weights/")]
    assert {tag.replace("weights/", "gradients/") for tag in weights} == set(tags) - set(weights)
    for tag in tags:
        assert [e.step for e in read.Histograms(tag)] == [10, 20, 30, 40]
    values = read.Histograms(weights[0])[-1].histogram_value
    assert values.num == sum(values.bucket)
    assert values.min < values.max


def test_texts(run):
    read = events(run)
    config = text(read, "config")
    assert "lr: 0.002" in config
    assert config.startswith("```yaml\n")
    assert "epochs=2 log.histograms=10 lr=0.002" in text(read, "command")
    assert "fingerprint" in text(read, "manifest")


def test_hparams_sort_a_sweep(run):
    read = events(run)
    start = hparams(read, "session_start_info").session_start_info.hparams
    assert start["lr"].number_value == 0.002
    assert start["model._target_"].string_value == ".models.cnn.CNN"
    assert "workers" not in start, "what does not change the result"
    assert hparams(read, "session_end_info").session_end_info.status == 1  # success
    (best,) = read.Scalars("best/acc")
    assert best.value == pytest.approx(result(run)["best"])
    # One run of TensorBoard for each run: no folder below that of the events.
    assert all(path.is_file() for path in (run / "tensorboard").iterdir())


def test_nothing_of_it_changes_the_result(train, workspace):
    options = ("epochs=2", "model.dropout=0.3", "log.every=7")
    assert train(*options, "name=with", "log.histograms=3", "profile=true").code == 0
    assert train(*options, "name=without", "logger=none").code == 0
    assert result(the_run(workspace, "with")) == result(the_run(workspace, "without"))


def test_a_profile(train, workspace):
    done = train(*QUICK, "logger=none", "profile=true")
    assert done.code == 0, done.out
    folder = the_run(workspace)
    trace = json.loads((folder / "profile/trace.json").read_text())
    steps = {e["name"] for e in trace["traceEvents"] if e["name"].startswith("ProfilerStep")}
    assert steps == {f"ProfilerStep#{n}" for n in range(7, 12)}
    assert "aten::" in (folder / "train.log").read_text()
    assert "aten::" not in done.out
    assert "USDT" not in done.out, "the profiler's own lines"
    assert f"runs/default/{folder.name}/profile/trace.json" in done.out


def test_a_profile_of_a_run_of_one_step(train, workspace):
    assert train(*QUICK, "logger=none", "profile=true", "max_steps=1").code == 0
    assert "ProfilerStep#0" in (the_run(workspace) / "profile/trace.json").read_text()


# ---------------------------------------------------------------- resumed


@pytest.fixture
def stopping(workspace) -> tuple[str, ...]:
    snippets.add(workspace, "digits/stopping.py")
    return ("task._target_=.stopping.Stopping", "epochs=3", "log.every=6", "save_every_steps=4")


def test_a_resumed_run_shows_each_step_once(train, workspace, stopping):
    options = (*stopping, "log.every=1", "log.histograms=17")  # so that each kill comes after logged steps
    for at in ("17", "35"):
        assert train(*options, "resume=auto", AT=at, WITH="SIGKILL").code == 137
    assert train(*options, "resume=auto").code == 0
    folder = the_run(workspace)
    assert len(list((folder / "tensorboard").iterdir())) == 3
    read = events(folder)
    for tag in {tag for row in rows(folder) for tag in row} - {"step", "epoch"}:
        assert [e.step for e in read.Scalars(tag)] == [row["step"] for row in rows(folder) if tag in row]
    assert list(pictures(read, "train/inputs")) == [1]
    assert [e.step for e in read.Images("val/predictions")] == [20, 40, 60]
    for tag in read.Tags()["histograms"]:
        assert [e.step for e in read.Histograms(tag)] == [17, 34, 51]
    assert "weights/stem.0.weight" in read.Tags()["histograms"]
    assert [e.step for e in read.Tensors("command/text_summary")] == [1, 17, 33]
    assert hparams(read, "session_end_info").session_end_info.status == 1


def test_flush_writes_everything(engine, tmp_path):
    sink = engine("loggers.tensorboard").TensorBoard(tmp_path, 1)
    for step in (1, 2):
        sink.scalars(step, {"train/loss": float(step)})
    sink.flush()
    assert [e.step for e in events(tmp_path).Scalars("train/loss")] == [1, 2]


def test_a_kill_loses_nothing_that_was_logged_before_a_checkpoint(train, workspace, stopping):
    done = train(*stopping, "logger.tensorboard.flush_secs=1000", AT="25", WITH="SIGKILL")
    assert done.code == 137
    read = events(the_run(workspace))
    assert [e.step for e in read.Scalars("train/loss")] == [6, 12, 18, 20, 24]
    assert [e.step for e in read.Images("val/predictions")] == [20]


# ---------------------------------------------------------------- other tasks


@pytest.fixture
def regression(workspace) -> tuple[str, ...]:
    snippets.add(workspace, "digits/tasks.py")
    for group, target in (("data", "Pairs"), ("model", "Both"), ("model", "Untraceable")):
        (workspace / f"configs/{group}/{target.lower()}.yaml").write_text(f"_target_: .tasks.{target}\n")
    common = ("monitor=val/loss", "monitor_mode=min", "epochs=2", "batch_size=16", "log.every=2")
    return ("data=pairs", "model=both", "task._target_=.tasks.Regression", *common)


def test_a_model_of_two_inputs_without_pictures(train, workspace, regression):
    done = train(*regression)
    assert done.code == 0, done.out
    read = events(the_run(workspace))
    inputs = [node for node in read.Graph().node if node.op == "IO Node"]
    assert len(inputs) == 3  # a, b and what comes out
    assert read.Tags()["images"] == []
    assert train(*regression, "logger=none", "name=none").code == 0
    assert result(the_run(workspace, "none")) == result(the_run(workspace)), "buffers count no call of the graph"


def test_a_graph_that_cannot_be_drawn_costs_one_line(train, workspace, regression):
    done = train(*regression, "model=untraceable")
    assert done.code == 0, done.out
    lines = [line for line in done.out.splitlines() if "no graph of mine" in line]
    assert lines == ["No graph is shown: RuntimeError: no graph of mine (digits/tasks.py, line 33)."]
    assert "Traceback" not in done.out


def test_images_that_fail_cost_one_line(train, workspace, regression):
    done = train(*regression, "task._target_=.tasks.Broken")
    assert done.code == 0, done.out
    assert done.out.count("a bug in images") == 1
    assert result(the_run(workspace))["steps"] == 8


def test_every_layout_of_pictures(train, workspace, regression):
    done = train(*regression, "task._target_=.tasks.Layouts")
    assert done.code == 0, done.out
    read = events(the_run(workspace))
    names = ("hw", "chw", "hwc", "nchw", "nhwc", "名 字")
    assert set(read.Tags()["images"]) == {f"{place}/{name}" for place in ("train", "val") for name in names}
    expected = np.linspace(0, 255, 12).round().astype(np.uint8)
    for name in names:
        (shown,) = pictures(read, f"train/{name}").values()
        down, right = (2, 3) if name.startswith("n") else (1, 1)
        assert shown.shape == (down * (6 * 12 + 8) + 8, right * (12 * 12 + 8) + 8, 3)  # twelvefold
        ramp = shown[8 + 3, 8 : 8 + 144 : 12, 0]
        assert ramp.tolist() == ([0] * 6 + [255] * 6 if name == "名 字" else expected.tolist())


def test_the_worst_mistakes_of_all_batches_are_kept(engine):
    import torch

    api, grids = engine("api"), engine("log.grids")
    labels = torch.arange(40) % 4
    logits = torch.nn.functional.one_hot(labels, 4) * 8.0
    wrong = [3, 11, 26, 39]
    for place, number in enumerate(wrong):
        logits[number] = torch.tensor([0.0, 0, 0, 0])
        logits[number, (labels[number] + 1) % 4] = 2.0 + place
    images = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 2)
    collected = grids.Collected(3)
    for start in range(0, 40, 10):
        part = slice(start, start + 10)
        collected.add(api.class_pictures(images[part], logits[part], labels[part]))
    assert collected.pictures["predictions"].images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert collected.pictures["mistakes"].images[:, 0, 0, 0].tolist() == [39, 26, 11]
    assert {tag for tag, _ in collected.grids([])} == {"predictions", "mistakes"}
    right = grids.Collected(3)
    right.add(api.class_pictures(images[:3], logits[:3], labels[:3]))
    assert {tag for tag, _ in right.grids([])} == {"predictions"}, "no mistake, no picture"


def test_looking_costs_no_second_forward_pass(engine, project, monkeypatch):
    import torch

    monkeypatch.chdir(project)
    parts = engine("setup").build_parts(engine("launch").compose())

    class Sink(engine("api").Logger):
        shown: list = []

        def scalars(self, step, values): ...

        def images(self, step, images):
            self.shown.append((step, set(images)))

    calls = []
    parts.model.register_forward_pre_hook(lambda *_: calls.append("asked"))
    forward = parts.model.stem.register_forward_pre_hook(lambda *_: calls.append("computed"))
    seen = engine("log.media").Media(parts, None)
    seen.open([Sink()], 0)
    with seen.validation(parts.model, 7) as look:
        engine("validation").evaluate_split(parts, parts.model, parts.val, 7, 1, look=look)
    forward.remove()
    batches = parts.val.plan.steps
    assert calls.count("computed") == batches
    assert calls.count("asked") == 2 * batches
    assert Sink.shown == [(7, {"val/predictions", "val/mistakes"})]
    assert "forward" not in vars(parts.model)
    again = torch.zeros(1, *parts.data.info["shape"])
    assert parts.model(again) is not parts.model(again)


OWN = '''
from .engine.api import Logger

class Lines(Logger):
    """As somebody wrote it for an older engine."""
    def __init__(self, folder):
        self.file = open(folder / "lines.txt", "w")

    def scalars(self, step, values):
        self.file.write(f"{step} {sorted(values)}\\n")
'''


def test_a_logger_that_takes_scalars_alone(train, workspace):
    (workspace / "digits/lines.py").write_text(OWN)
    task = (workspace / "digits/task.py").read_text()
    broken = task.replace("def images(", "def images(self, *_): 1 / 0\n\n    def unused(")
    (workspace / "digits/task.py").write_text(broken)
    (workspace / "configs/logger/lines.yaml").write_text("lines:\n  _target_: .lines.Lines\n")
    done = train("epochs=1", "logger=lines", "log.histograms=1")
    assert done.code == 0, done.out
    assert "No pictures" not in done.out, "what no logger takes is not computed"
    assert (the_run(workspace) / "lines.txt").read_text().count("\n") == len(rows(the_run(workspace)))


@pytest.mark.parametrize("choice", ["none", "[]", "[none]"])
def test_no_logger(train, workspace, choice):
    done = train("epochs=1", f"logger={choice}")
    assert done.code == 0, done.out
    assert not (the_run(workspace) / "tensorboard").exists()


# ---------------------------------------------------------------- Weights & Biases, MLflow


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
    options = (*stopping, "logger=wandb", "logger.wandb.mode=offline")
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

    options = (*stopping, "logger=[tensorboard,mlflow]", "save_every_steps=20", "lr=0.002")
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
