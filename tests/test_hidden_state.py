"""docs/hidden-state.md is executed: each faulty example is caught, and each cured one resumes exactly."""

import re
from pathlib import Path

import pytest
import torch
from helpers.runs import result, the_run
from torch import nn

PAGE = (Path(__file__).resolve().parents[1] / "docs/hidden-state.md").read_text()
HEAD = """import time
import zlib

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from .data.digits import Digits
from .engine.api import Data
from .metrics import accuracy
from .task import Classification

"""
NOISY = """

class Mine(Data):
    info = {"classes": 10, "shape": (1, 8, 8)}

    def split(self, name):
        return Noisy()
"""
MODEL, DATA = ("model=mine",), ("data=mine", "model=mlp", "model.hidden=[8]")
ORDER = ("data._target_=.mine.Mine", *DATA[1:])
SMALL = ("logger=none", "batch_size=16", "max_steps=4", "epochs=4", "save_every_steps=100", "limit_val_batches=1")


def examples(title: str) -> list[str]:
    """The code below a heading of the page."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(title + "\n")]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


KINDS = {
    "A buffer that is not persistent": (MODEL, "model.mean: 0.0 → "),
    "An attribute of the model": (MODEL, "model.calls: "),
    "An attribute of the task": (("task._target_=.mine.Smoothed", "model=mlp"), "task.mean"),
    "A second network in the task": (("task._target_=.mine.Taught", "model=mlp"), "task.teacher.bias[0]: "),
    "A generator of the data set": (DATA, "When it is read again, this differs: training sample "),
    "An order that is drawn without its key": (ORDER, "Data.order is called again, this differs: the order of epoch 1"),
}


@pytest.fixture
def mine(workspace):
    """`mine(code)`: the file mine.py of the project holds an example."""
    for group, name in (("model", "Net"), ("data", "Mine")):
        (workspace / f"configs/{group}/mine.yaml").write_text(f"_target_: .mine.{name}\n")

    def mine(code: str) -> None:
        noisy = NOISY if "class Noisy" in code and "class Mine" not in code else ""
        (workspace / "digits/mine.py").write_text(f"{HEAD}\n{code}{noisy}")

    return mine


def assert_it_resumes(train, workspace, overrides, name=""):
    """A run that stops after each step ends as the whole one does."""
    done = train(*SMALL, *overrides, f"name=whole{name}")
    assert done.code == 0, done.out
    assert "No checkpoint holds it" not in done.out
    stopping = (*SMALL, *overrides, f"name=stopped{name}", "resume=auto", "max_minutes=0.00001")
    codes = [75]
    while codes[-1] == 75 and len(codes) < 9:
        codes.append(train(*stopping).code)
    assert codes[-1] == 0
    assert len(codes) > 4
    assert result(the_run(workspace, f"stopped{name}")) == result(the_run(workspace, f"whole{name}"))


def test_every_section_is_tested():
    titles = re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    assert titles == [*KINDS, "Data that are drawn when they are built", "The hash of a text"]


@pytest.mark.parametrize("title", KINDS)
def test_before_a_run(train, workspace, mine, title):
    overrides, words = KINDS[title]
    faulty, *cured = examples(title)
    mine(faulty)
    done = train(*SMALL, *overrides)
    assert done.code == 2, done.out
    assert words in done.last, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert not (workspace / "runs").exists()
    done = train(*SMALL, *overrides, "deterministic=warn")
    assert done.code == 0, done.out
    assert words in done.out
    assert words not in train(*SMALL, *overrides, "deterministic=false").out
    assert cured
    for number, code in enumerate(cured):
        mine(code)
        assert_it_resumes(train, workspace, overrides, str(number))


def test_when_everything_is_built_again(train, workspace, mine):
    faulty, cured = examples("Data that are drawn when they are built")
    mine(faulty)
    assert train(*SMALL, *DATA).code == 0
    done = train(*SMALL, *DATA, "dry_run=true")
    assert done.code == 2, done.out
    assert "When a second copy resumes, this differs: step.batch[0][0][0, 0, 0, 0]: " in done.last
    mine(cured)
    assert train(*SMALL, *DATA, "dry_run=true").code == 0
    assert_it_resumes(train, workspace, DATA)


def test_in_another_process(train, server, workspace, mine):
    faulty, cured = examples("The hash of a text")
    for code, name, expected, words in ((faulty, "a", 1, "different: "), (cured, "b", 0, "identical: 4 steps")):
        mine(code)
        assert train(*SMALL, *DATA, f"name={name}", "log.every=1").code == 0
        folder = str(the_run(workspace, name))
        done = server.run(workspace / "digits/__main__.py", "reproduce", folder, "--stop-at", "2")
        assert done.code == expected, done.out
        assert words in done.out
        if expected:
            assert re.search(r"first at step \d in \w+/\w+: ", done.out), done.out


# ---------------------------------------------------------------- no false alarms


def network(kind: str) -> nn.Module:
    if kind.startswith("timm "):
        model = pytest.importorskip("timm").create_model(kind.split()[1], num_classes=10, drop_path_rate=0.1)
        return nn.Sequential(nn.Upsample(64), nn.Conv2d(1, 3, 1), model)
    if kind.startswith("torchvision "):
        models = pytest.importorskip("torchvision").models
        model = models.get_model(kind.split()[1], num_classes=10)
        return nn.Sequential(nn.Upsample(32), nn.Conv2d(1, 3, 1), model)
    flat = nn.Linear(64, 10)
    return {
        "weight norm": lambda: nn.Sequential(nn.Flatten(), nn.utils.weight_norm(flat)),
        "spectral norm": lambda: nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(flat)),
        "parametrized": lambda: nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(flat)),
        "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(64), flat),
        "instance norm": lambda: nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), flat),
    }[kind]()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    [
        *("weight norm", "spectral norm", "parametrized", "dropout", "instance norm"),
        *(f"torchvision {name}" for name in ("resnet18", "swin_t", "convnext_tiny", "mobilenet_v3_small")),
        *(f"timm {name}" for name in ("resnet10t", "convnext_atto", "mobilenetv3_small_050")),
    ],
)
def test_common_networks_raise_no_alarm(looped, engine, caplog, kind):
    parts = looped("logger=none", "batch_size=8").parts
    torch.manual_seed(0)
    parts.model = network(kind)
    optimizer, config = engine("build.optimizer"), parts.config
    parts.parameters = optimizer.named_parameters(parts.model, parts.loss)
    parts.optimizer = optimizer.build_optimizer(config.optimizer, config.lr, parts.model, parts.parameters, ())
    before = {key: value.clone() for key, value in parts.model.state_dict().items()}
    assert engine("build.passes").copied(parts).model is not parts.model
    engine("build.first_batch").check_one_batch(parts)
    assert not caplog.records
    for key, value in parts.model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_count_that_nothing_reads_is_a_warning(train, workspace, mine):
    """A cache that is filled once is not worth one."""
    faulty = examples("An attribute of the model")[0]
    mine(faulty.replace(" / self.calls", ""))
    done = train(*SMALL, *MODEL)
    assert done.code == 0, done.out
    assert "A step changes model.calls: 0 → " in done.out
    mine(faulty.replace("self.calls = 0", "self.calls = None").replace("self.calls += 1", "self.calls = 2.0"))
    assert "A step changes" not in train(*SMALL, *MODEL, "name=cache").out


def test_a_time_in_a_step(train, workspace, mine):
    mine(examples("An attribute of the model")[0].replace(" / self.calls", " * (time.perf_counter() % 1)"))
    done = train(*SMALL, *MODEL)
    assert done.code == 2, done.out
    assert "A resumed run would differ" in done.last


def test_a_tensor_that_the_first_step_makes(engine):
    """It is absent before."""
    difference = engine("build.differences").difference
    assert difference({}, {"last": torch.ones(2)}) == ".last: None → ndarray"
    assert difference({"last": torch.ones(2)}, {}) == ".last: ndarray → None"
