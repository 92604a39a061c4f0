"""The host waits for a GPU at log points and in validations alone, and copies to it from pinned memory alone."""

import json
import shutil

import pytest
from helpers import snippets, stand_in
from helpers.starting_points import render_point
from helpers.template import POINTS, ROOT

pytestmark = pytest.mark.xdist_group("gpu_waits")
SHORT = (
    "device=cuda", "logger=none", "log.curves=false", "max_steps=8", "batch_size=8", "log.every=3",
    "val_every_steps=4", "save_every_steps=3", "limit_val_batches=2",
)  # fmt: skip
PRECISIONS = {
    "fp32": (),
    "tf32": ("clip_grad_norm=1",),
    "bf16": ("ema_decay=0.9", "accumulate=2", "log.grad_norm=true"),
    "fp16": ("ema_decay=0.9", "accumulate=2", "clip_grad_norm=1"),
}


@pytest.fixture(scope="module")
def projects(render, tmp_path_factory):
    """Each starting point, with the script that counts."""
    made = {}

    def project(point):
        if point not in made:
            made[point] = render_point(render, tmp_path_factory.mktemp(point) / "p", point)
            snippets.add(made[point], "counted.py")
        return made[point]

    return project


@pytest.fixture
def counted(gpu_server, projects):
    """`counted(point, *overrides)`: the counts of a run by the part of the loop, or an assertion."""

    def counted(point, *overrides, **env):
        done = gpu_server.run(projects(point) / "counted.py", *SHORT, *overrides, **stand_in.ZEROS, **env)
        assert done.code == 0, done.out
        return json.loads(done.last)

    return counted


def assert_waits_little(found, saved=0, metrics=0):
    """No wait in a step. A log point and a save wait once for logged values, a validation twice. A save also waits for
    `saved` values of its own, and its thread for the copies. A validation also waits `metrics` times for its metrics.
    """
    assert found["on the host"] == []
    assert found["step"]["calls"] == 5
    assert found["step"]["launches"] > 15 * 5
    limits = (("step", 0, 0), ("log", 1, 1), ("save", 1, 2 + saved), ("validation", 2, 2 + metrics))
    for part, fetched, most in limits:
        calls = found[part]["calls"]
        assert found[part]["pageable"] <= fetched * calls, (part, found[part])
        assert found[part]["waits"] <= most * calls, (part, found[part])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("point", POINTS)
def test_a_step_waits_for_nothing(counted, point, precision):
    found = counted(point, f"precision={precision}", *PRECISIONS[precision])
    # The confusion matrix of torchmetrics waits for each micro-batch of a validation.
    micro_batches = 2 * (2 if "accumulate=2" in PRECISIONS[precision] else 1)
    metrics = 1 + 2 * micro_batches if point == "segmentation" else 0
    saved = 2 if precision == "fp16" else 0  # of the scaler
    assert_waits_little(found, saved, metrics)


@pytest.mark.parametrize(
    "overrides",
    [
        ("mix=mixup", "channels_last=true"),
        ("data_on_device=true", "mix=cutmix"),
        ("data=synthetic", "data.size=2000", "model=resnet18", "optimizer=sgd", "channels_last=true"),
        ("workers=1",),
        ("scheduler=one_cycle", "optimizer=adam", "loss=terms"),
    ],
    ids=" ".join,
)
def test_choices_wait_for_nothing(counted, overrides):
    assert_waits_little(counted("image_classification", *overrides))


def test_a_number_on_the_host_is_not_waited_for(counted):
    assert_waits_little(counted("image_classification", "accumulate=2", COUNTED="1"))


def test_a_validation_does_not_wait_for_each_batch(counted):
    few, many = (counted("image_classification", f"limit_val_batches={n}")["validation"] for n in (2, 9))
    assert few["calls"] == many["calls"]
    assert few["waits"] == many["waits"]
    assert few["pageable"] == many["pageable"]
    assert few["launches"] < many["launches"]


def test_the_folder_for_a_gpu_machine_counts_waits(gpu_server, projects):
    """It asks torch. The waits of a log point show that it sees them."""
    project = projects("image_classification")
    shutil.copyfile(ROOT / "benchmarks/on_gpu/inside.py", project / "inside.py")
    done = gpu_server.run(project / "inside.py", "waits", *SHORT, "max_steps=12", **stand_in.ZEROS)
    assert done.code == 0, done.out
    found = json.loads(done.last)["waits"]
    assert {place.split()[0] for place in found} >= {"log", "validate"}
    assert not [place for place in found if place.startswith("step ")]
