"""What TensorBoard shows of a run: values, pictures, the graph, histograms and texts, also of a resumed run."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.event_files import events, hparams, pictures, text
from helpers.runs import result, rows, the_run

QUICK = ("epochs=2", "log.every=10", "log.graph=false", "log.images=0")


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
    assert list(charts) == ["loss", "acc", "lr"]


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
    assert not re.search(r"/\d", names), "each operation has a name"
    assert {"mean", "amax", "add", "result"} <= {node.name.split("/")[-1].split(".")[0] for node in graph.node}


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


def test_histograms_of_odd_values(engine, tmp_path):
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "constant": torch.full((2,), 1e30),
        "denormal": torch.tensor([0, 5e-324], dtype=torch.float64),
        "close": torch.tensor([1, 1 + 2e-16], dtype=torch.float64),
        "infinite": torch.tensor([torch.inf, torch.nan]),
        "partly": torch.tensor([torch.inf, 1.0, 2.0]),
        "half": torch.tensor([1, 1.01], dtype=torch.bfloat16),
    }
    logger = engine("loggers.tensorboard").TensorBoard(tmp_path, 1)
    logger.histograms(1, odd)
    logger.close()
    assert {"sparse", "partly", "half"} <= set(events(tmp_path).Tags()["histograms"])


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
    values = {row["step"]: row["val/acc"] for row in rows(run) if "val/acc" in row}
    wanted = {step: max(v for s, v in values.items() if s <= step) for step in values}
    best = {event.step: event.value for event in read.Scalars("best/acc")}
    assert best == pytest.approx({step: wanted[step] for step in best}), "a curve, and not one dot"
    assert len(best) == 2
    assert best[max(values)] == pytest.approx(result(run)["best"])
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
