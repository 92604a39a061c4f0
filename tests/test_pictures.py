"""What a task shows besides numbers: pictures of every layout, the graph, and one line where that fails."""

import numpy as np
import pytest
from helpers import snippets
from helpers.event_files import events, pictures
from helpers.runs import result, the_run


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
    collected = grids.Collected(3, [])
    for start in range(0, 40, 10):
        part = slice(start, start + 10)
        collected.add(api.class_pictures(images[part], logits[part], labels[part]))
    assert collected.pictures["predictions"].images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert collected.pictures["mistakes"].images[:, 0, 0, 0].tolist() == [39, 26, 11]
    assert collected.grids().keys() == {"predictions", "mistakes"}
    right = grids.Collected(3, [])
    right.add(api.class_pictures(images[:3], logits[:3], labels[:3]))
    assert right.grids().keys() == {"predictions"}, "no mistake, no picture"


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
    seen = engine("log.media").Media(parts, None, [Sink()])
    with seen.watching(parts.model) as look:
        engine("validation").evaluate_split(parts, parts.model.eval(), parts.val, 7, 1, look=look)
    forward.remove()
    batches = parts.val.plan.steps
    assert calls.count("computed") == batches
    assert calls.count("asked") == 2 * batches
    assert Sink.shown == [(7, {"val/predictions", "val/mistakes"})]
    assert "forward" not in vars(parts.model)
    again = torch.zeros(1, *parts.data.info["shape"])
    assert parts.model(again) is not parts.model(again)
