"""Every optimizer goes on bit for bit from a checkpoint, by parameter name, or is refused before the run."""

import importlib.util
import io
import sys
import time

import pytest
import torch
from helpers import snippets
from helpers.runs import result, the_run
from torch import nn
from torch.optim import Optimizer

PACKAGES = ("torch.optim", "timm.optim", "prodigyopt", "schedulefree")
REFUSED = {
    "torch.optim.LBFGS": "closure",
    "torch.optim.SparseAdam": "dense gradients",
    "timm.optim.Adahessian": "grad_fn",
    "timm.optim.Lookahead": "base_optimizer",
    "schedulefree.ScheduleFreeWrapper": "base",
    "schedulefree.ScheduleFreeWrapperReference": "base",
    "schedulefree.AdamWScheduleFreeClosure": "closure",
    "schedulefree.RAdamScheduleFreeClosure": "closure",
    "schedulefree.SGDScheduleFreeClosure": "closure",
}
"""Classes that train no dense matrices in a step without a closure, and a word of the reason."""


def classes() -> list[str]:
    """The full name of each optimizer class of the packages that are installed, each class once."""
    found: dict[type, str] = {}
    for package in PACKAGES:
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer:
                found.setdefault(kind, f"{package}.{name}")
    return sorted(found.values())


@pytest.fixture(scope="module")
def optim(engine):
    return engine("build.optimizer")


@pytest.fixture(scope="module")
def state(engine):
    return engine("build.optimizer_state")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 2, bias=False))


def build(optim, model: nn.Module, target: str, **section) -> Optimizer:
    parameters = optim.named_parameters(model, nn.Module())
    section = {"_target_": target, **section}
    optimizer = optim.build_optimizer(section, 0.01, model, parameters, [p.split(".")[0] for p in PACKAGES])
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = (torch.randn(8, width, generator=generator) for width in (4, 2))
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        torch.manual_seed(step)
        optimizer.step()


def stored(values: dict) -> dict:
    """What a file of tensors and plain values gives back."""
    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def states_of(model: nn.Module, optimizer: Optimizer) -> list:
    return [(name, key, value) for name, p in model.named_parameters() for key, value in optimizer.state[p].items()]


def assert_equal(one, other) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def assert_goes_on_exactly(optim, state, target: str, **options) -> None:
    """Stopped after five steps and loaded into other groups, it ends as without the stop."""
    whole = net()
    groups = [{"name": "a", "match": "0.*"}, {"name": "b", "match": "*"}]
    optimizer = build(optim, whole, target, groups=groups, **options)
    train(whole, optimizer, range(5))
    half = stored({"model": whole.state_dict(), **state.optimizer_state(optimizer)})
    assert set(half["optimizer"]) <= {"0.weight", "2.weight"}
    train(whole, optimizer, range(5, 20))
    model = net()
    model.load_state_dict(half["model"])
    groups = [{"name": "b", "match": "2.*"}, {"name": "a", "match": "*"}]
    resumed = build(optim, model, target, groups=groups, **options)
    state.load_optimizer_state(resumed, half["optimizer"], half["optimizer_values"])
    train(model, resumed, range(5, 20))
    for one, other in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_equal(states_of(whole, optimizer), states_of(model, resumed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", classes())
def test_goes_on_bit_for_bit_or_is_refused(optim, state, engine, monkeypatch, target):
    if target == "timm.optim.Kron":
        monkeypatch.setattr("timm.optim.kron.has_dynamo", False)  # compiling takes minutes
    if target in REFUSED:
        with pytest.raises(engine("errors").UserError, match=REFUSED[target]):
            build(optim, net(), target)
    else:
        assert_goes_on_exactly(optim, state, target)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AdamW", {"fused": True}),
        ("Adam", {"amsgrad": True}),
        ("NAdam", {"foreach": False, "decoupled_weight_decay": True}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_options_with_more_state(optim, state, name, options):
    assert_goes_on_exactly(optim, state, f"torch.optim.{name}", **options)


@pytest.fixture
def unusual(engine, monkeypatch):
    """The snippet's optimizers as a module of the project."""
    place = snippets.SNIPPETS / "digits/optimizers.py"
    spec = importlib.util.spec_from_file_location("digits.optimizers", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "digits.optimizers", module)


@pytest.mark.parametrize("name", ["Plain", "Marked", "InGroup", "UnderAName", "OfItsOwn", "Double"])
def test_state_in_unusual_places(optim, state, unusual, name):
    assert_goes_on_exactly(optim, state, f".optimizers.{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Lossy", "Lossy does not go on exactly from a checkpoint: its count differs"),
        ("Drawing", "Drawing does not go on exactly from a checkpoint: its next step differs"),
        ("Late", "Late does not go on exactly from a checkpoint: its slow differs"),
        ("Shared", "Shared does not go on exactly from a checkpoint: its next step differs"),
        ("Wrapping", "Wrapping does not go on exactly from a checkpoint: its next step differs"),
        ("Numpy", "Numpy has state that a checkpoint cannot hold"),
    ],
)
def test_state_that_a_checkpoint_lacks(optim, engine, unusual, name, words):
    with pytest.raises(engine("errors").UserError, match=words):
        build(optim, net(), f".optimizers.{name}")


def test_an_optimizer_around_another_may_share_its_groups(optim, unusual):
    optimizer = build(optim, net(), ".optimizers.Wrapped")
    assert optimizer.inner.param_groups[0] is optimizer.param_groups[0]


def test_a_sparse_gradient_in_the_trial(optim, state):
    table = nn.Embedding(10, 3, sparse=True)
    optimizer = build(optim, table, "torch.optim.SparseAdam")
    table(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    assert list(state.optimizer_state(optimizer)["optimizer"]) == ["weight"]


def test_state_of_an_older_release(optim, state, unusual, monkeypatch):
    """Values of the groups stay those of the config. A sentence says so if steps may have changed them."""
    said = []
    monkeypatch.setattr(state, "say", said.append)
    model = net()
    optimizer = build(optim, model, "torch.optim.AdamW", weight_decay=0.3)
    train(model, optimizer, range(3))
    half = stored(state.optimizer_state(optimizer))
    model.zero_grad()
    other = build(optim, model, "torch.optim.AdamW", weight_decay=0.3)
    state.load_optimizer_state(other, half["optimizer"])
    assert_equal(states_of(model, optimizer), states_of(model, other))
    assert other.param_groups[0]["weight_decay"] == 0.3
    assert said == []
    optimizer = build(optim, net(), ".optimizers.InGroup")
    state.load_optimizer_state(optimizer, {})
    assert "lacks values that InGroup may keep" in said[0]


def test_a_parameter_that_model_and_loss_share_has_one_name(optim):
    model, loss = nn.Linear(2, 2), nn.Module()
    loss.weight, loss.scale = model.weight, nn.Parameter(torch.ones(()))
    assert list(optim.named_parameters(model, loss)) == ["weight", "bias", "loss.scale"]


def test_the_trial_takes_little_time(optim):
    """On a model with many groups too."""
    model = nn.Sequential(*(nn.Linear(300, 300) for _ in range(30)))
    groups = [{"name": str(number), "match": f"{number}.*"} for number in range(30)]
    build(optim, model, "torch.optim.AdamW")
    began = time.process_time()
    build(optim, model, "torch.optim.AdamW", groups=groups)
    assert time.process_time() - began < 1


# ---------------------------------------------------------------- in a run

ANY = "_target_: ???\ngroups: null\nlayer_decay: null\nno_decay_norm_bias: false\n"


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.RAdam",
        "timm.optim.Lamb",
        "prodigyopt.Prodigy",
        "schedulefree.AdamWScheduleFree",
        ".optimizers.InGroup",
        ".optimizers.UnderAName",
        ".optimizers.Double",
    ],
)
def test_a_run_that_is_stopped(train, workspace, stopping, target):
    package = target.split(".")[0]
    if package:
        pytest.importorskip(package)
    snippets.add(workspace, "digits/optimizers.py")
    (workspace / "configs/optimizer/any.yaml").write_text(ANY)
    options = (*stopping, "optimizer=any", f"optimizer._target_={target}", "logger=none", "model=mlp")
    if package:
        options += (f"allowed_packages=[{package}]",)
    assert train(*options, "name=whole", "save_every_steps=100", "val_every_epochs=3").code == 0
    for at, code in (("5", 75), ("31", 75), ("", 0)):
        done = train(*options, "name=stopped", "resume=auto", AT=at, WITH="SIGTERM")
        assert done.code == code, done.out
    ends = [result(the_run(workspace, name)) for name in ("whole", "stopped")]
    for key in ("weights_sha256", "ema_sha256", "last", "steps"):
        assert ends[0].get(key) == ends[1].get(key)


def test_a_schedule_free_optimizer_evaluates_its_average(train, workspace, stopping):
    """That is x = y + (1 - 1 / beta) (z - y) of the weights y that it trains (Defazio et al. 2024)."""
    pytest.importorskip("schedulefree")
    (workspace / "configs/optimizer/any.yaml").write_text(ANY)
    options = ("optimizer=any", "optimizer._target_=schedulefree.SGDScheduleFree", "allowed_packages=[schedulefree]")
    done = train(*options, "lr=0.1", "epochs=1", "logger=none", "model=mlp")
    assert done.code == 0, done.out
    state = torch.load(next((the_run(workspace) / "checkpoints").glob("step-*.pt")), weights_only=True)
    for name, y in state["model"].items():
        x = y + (1 - 1 / 0.9) * (state["optimizer"][name]["z"] - y)
        assert torch.allclose(state["ema"][name], x, atol=1e-6)
        assert not torch.equal(state["ema"][name], y)
    done = train(*options, "ema_decay=0.9")
    assert done.code == 2
    assert "ema_decay=null" in done.last


@pytest.mark.parametrize(
    ("target", "words"),
    [(".optimizers.Numpy", "a checkpoint cannot hold"), ("torch.optim.LBFGS", "closure"), ("torch.optim.Muon", "2D")],
)
def test_a_refused_optimizer_leaves_no_run(train, workspace, target, words):
    snippets.add(workspace, "digits/optimizers.py")
    (workspace / "configs/optimizer/any.yaml").write_text(ANY)
    done = train("optimizer=any", f"optimizer._target_={target}", "model=mlp", "logger=none")
    assert done.code == 2, done.out
    assert words in done.last
    assert len(done.out.strip().splitlines()) == 1
    assert not (workspace / "runs").exists()
