"""Before a run folder exists, batches go forward and backward. They leave no trace; lazy modules learn their shapes."""

import importlib.util
import pickle
import sys
import time

import pytest
import torch
from helpers import snippets
from helpers.runs import rows, the_run

SHORT = ("logger=none", "epochs=2", "limit_train_batches=6")


@pytest.fixture
def classes(workspace):
    """The classes of the snippet, as choices of a model."""
    snippets.add(workspace, "digits/firsts.py")
    for name in ("Lazy", "Spare", "Normed"):
        (workspace / f"configs/model/{name.lower()}.yaml").write_text(f"_target_: .firsts.{name}\n")


@pytest.fixture
def firsts(engine):
    """The snippet as a module of the project, in this process."""
    engine("api")
    spec = importlib.util.spec_from_file_location("digits.firsts", snippets.SNIPPETS / "digits/firsts.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits.firsts"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["digits.firsts"]


# ---------------------------------------------------------------- lazy modules


@pytest.mark.usefixtures("classes")
def test_a_lazy_model_resumes_and_is_read_without_training(train, server, workspace):
    assert train("model=lazy", *SHORT, "ema_decay=0.5", "save_every_steps=5").code == 0
    folder = the_run(workspace)
    done = server.run(workspace / "digits/__main__.py", "reproduce", str(folder), "--stop-at", "3,7")
    assert done.last.startswith("identical: 12 steps"), done.out
    for verb in ("evaluate", "export"):
        done = server.run(workspace / "digits/__main__.py", verb, str(folder), "--checkpoint", "last")
        assert done.code == 0, done.out
        if verb == "evaluate":
            assert f"{rows(folder)[-1]['val/loss']:.3f}" in done.out, done.out


@pytest.mark.usefixtures("classes")
def test_a_lazy_model_on_two_processes(train_together, workspace):
    done = train_together("model=lazy", *SHORT, "ema_decay=0.5")
    assert done.code == 0, done.out


@pytest.mark.usefixtures("classes")
def test_a_lazy_module_that_training_does_not_use(train, workspace):
    done = train("model=spare", *SHORT)
    assert done.code == 2, done.out
    assert done.last == "The lazy module 'spare' gets no batch in eval mode. Give it its sizes."
    assert not (workspace / "runs").exists()


def lazy_parts(looped, first_batch, firsts, *overrides):
    parts = looped("logger=none", *overrides).parts
    parts.model = firsts.Lazy(10)
    first_batch.materialise(parts, parts.train)
    return parts


@pytest.mark.parametrize("overrides", [("batch_size=10",), ("accumulate=2", "channels_last=true"), ("lr=1",)])
def test_values_of_lazy_modules_follow_from_the_seed_and_their_shapes(looped, engine, firsts, overrides):
    first_batch = engine("build.first_batch")
    model = lazy_parts(looped, first_batch, firsts).model
    again = lazy_parts(looped, first_batch, firsts, *overrides).model
    for (name, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    norm = model.net[1]
    assert norm.running_mean.eq(0).all()
    assert norm.running_var.eq(1).all()
    assert norm.num_batches_tracked == 0
    assert [type(module).__name__ for module in model.net] == ["Conv2d", "BatchNorm2d", "Flatten", "Dropout", "Linear"]
    assert not any(module._forward_pre_hooks for module in model.modules())
    other = lazy_parts(looped, first_batch, firsts, "seed=8").model
    assert not torch.equal(other.net[4].weight, model.net[4].weight)
    # The values of torch's own initialisation: uniform in ± 1 / √inputs.
    weight, bound = model.net[4].weight, model.net[4].in_features ** -0.5
    assert 0.95 * bound < weight.abs().max() <= bound


# ---------------------------------------------------------------- training batches


@pytest.mark.usefixtures("classes")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model=normed", "batch_size=36", "drop_last=false"), "smallest training batch (1×1×8×8, 1)"),
        (("model=normed", "batch_size=38", "accumulate=19", "drop_last=false"), "smallest training batch (1×1×8×8, 1)"),
        (("model=normed", "batch_size=1"), "first training batch (1×1×8×8, 1)"),
        (("task._target_=.firsts.Fails",), "first training batch (64×1×8×8, 64): ValueError: no such layer"),
    ],
    ids=["last", "micro", "first", "training"],
)
def test_training_batches_that_a_model_refuses(train, workspace, overrides, words):
    """1,297 samples are 36 · 36 + 1, and 34 · 38 + 5: of 19 micro-batches, 5 hold a sample."""
    done = train(*overrides, "logger=none")
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert words in done.last
    assert ("Set drop_last=true to leave it out." in done.last) == ("smallest" in words)
    assert not (workspace / "runs").exists()


@pytest.mark.usefixtures("classes")
def test_the_same_batches_without_the_smallest(train):
    assert train("model=normed", "batch_size=36", *SHORT).code == 0


@pytest.mark.usefixtures("classes")
def test_two_processes_refuse_together(train_together, workspace):
    """Each process gets one sample of a batch of two."""
    done = train_together("model=normed", "batch_size=2", "logger=none")
    assert done.code == 2, done.out
    assert done.out.count("first training batch") == 1, done.out
    assert not (workspace / "runs").exists()


def test_the_check_leaves_no_trace(looped, engine, firsts):
    parts = looped("logger=none", "drop_last=false", "ema_decay=0.9").parts
    parts.model = firsts.Normed(10).train()
    parts.task = firsts.Keeping(parts.loss)
    groups, config = engine("build.optimizer"), parts.config
    parts.parameters = groups.named_parameters(parts.model, parts.loss)
    parts.optimizer = groups.build_optimizer(config.optimizer, config.lr, parts.model, parts.parameters, ())
    task = {k: v for k, v in vars(parts.task).items() if k not in ("loss", "generators")}

    def state():
        torchs, numpys, pythons, old = parts.task.generators
        drawn = [torchs.get_state().numpy(), numpys.bit_generator.state, pythons.getstate(), old.get_state()]
        tensors = [*parts.model.state_dict().values(), parts.model.count, *parts.averaged.model.state_dict().values()]
        return pickle.dumps([task, parts.model.calls, parts.model.last, drawn, [t.numpy() for t in tensors]])

    before, ids = state(), {k: id(v) for k, v in vars(parts.task).items()}
    engine("build.first_batch").check_one_batch(parts)
    assert state() == before
    assert {k: id(v) for k, v in vars(parts.task).items()} == ids
    assert [p.grad for p in parts.model.parameters()] == [None] * 6
    assert not parts.optimizer.state
    assert parts.model.training
    parts.task.training_step(parts.model, parts.train.first(), type("Ctx", (), {"step": 0}))
    assert state() != before


def test_the_check_takes_less_than_a_second(looped, engine):
    parts = looped("logger=none").parts
    began = time.thread_time()  # the tests' machine does other things at the same time
    engine("build.first_batch").check_one_batch(parts)
    assert time.thread_time() - began < 1
