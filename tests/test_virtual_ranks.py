"""`virtual_ranks`: the same bits on any number of processes."""

import json

import pytest
import torch
from helpers import snippets
from helpers.runs import logged, result, the_run
from helpers.starting_points import render_point

NORMED = """
from torch import nn

class Normed(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, classes))

    def forward(self, x):
        return self.layers(x)
"""
OPTIONS = ("model=normed", "logger=none", "log.curves=false", "max_steps=16", "epochs=9")
HARD = (
    *("virtual_ranks=4", "accumulate=2", "batch_size=104", "drop_last=false", "clip_grad_norm=0.5", "ema_decay=0.9"),
    *("mix=mixup", "channels_last=true", "precision=bf16", "log.every=5", "val_every_steps=8", "save_every_steps=3"),
    "log.windows=[{source: grad_norm, statistic: mean, window: 7, name: norm}]",
)


@pytest.fixture
def run(server, workspace):
    """`run(name, processes, *overrides)`: the result of a command on so many processes."""
    (workspace / "digits/models/normed.py").write_text(NORMED)
    (workspace / "configs/model/normed.yaml").write_text("_target_: .models.normed.Normed\n")

    def run(name: str, processes: int, *overrides: str, **env: str):
        given = (f"name={name}", *overrides)
        return server.run_together(workspace / "train.py", *given, processes=processes, **env)

    return run


def assert_equal_bits(workspace, one: str, other: str) -> None:
    one, other = the_run(workspace, one), the_run(workspace, other)
    assert result(one) == result(other)
    assert logged(one) == logged(other)


def test_the_gradient_is_the_sum_in_a_tree(looped):
    """Computed again by hand, part by part."""
    loop = looped("logger=none", "model=mlp", "virtual_ranks=4", "optimizer=sgd", "batch_size=64")
    p, weights = loop.parts, [weight.detach().clone() for weight in loop.parts.parameters.values()]
    p.scheduler.begin(p.optimizer, 0)
    loop.training_step(p.train.read(0, 1))
    found = [weight.grad.clone() for weight in p.parameters.values()]
    for weight, value in zip(p.parameters.values(), weights, strict=True):
        weight.data.copy_(value)
    samples, plan, parts = p.train.plan.samples(0), p.train.plan, []
    assert [batch.indices.tolist() for batch in plan.batches(0)] == samples.reshape(4, 16).tolist()
    for batch in plan.batches(0):
        images, labels = p.train.read_here(batch)
        loss = torch.nn.functional.cross_entropy(p.model(images), labels) * (16 / 64)
        parts.append(torch.autograd.grad(loss, list(p.parameters.values())))
    by_hand = [(a + b) + (c + d) for a, b, c, d in zip(*parts, strict=True)]
    assert all(map(torch.equal, found, by_hand))
    in_a_row = [((a + b) + c) + d for a, b, c, d in zip(*parts, strict=True)]
    assert not all(map(torch.equal, found, in_a_row)), "another order would give other bits"


def test_a_preempted_run_comes_back_with_fewer_processes(run, workspace):
    """Killed on four processes and on two, finished on one: as whole runs on one and on two."""
    snippets.add(workspace, "digits/stopping.py")
    options = (*OPTIONS, *HARD, "task._target_=.stopping.Stopping")
    for name, processes in (("one", 1), ("two", 2)):
        done = run(name, processes, *options)
        assert done.code == 0, done.out
    assert_equal_bits(workspace, "one", "two")
    assert run("preempted", 4, *options, AT="5", WITH="SIGKILL").code == 137
    resumed = f"resume={the_run(workspace, 'preempted')}"
    assert run("preempted", 2, resumed, AT="10", WITH="SIGKILL").code == 137
    done = run("preempted", 1, resumed)
    assert done.code == 0, done.out
    assert_equal_bits(workspace, "one", "preempted")
    manifest = json.loads((the_run(workspace, "preempted") / "manifest.json").read_text())
    assert [resumed["step"] for resumed in manifest["resumed"]] == [3, 9]
    assert [resumed["differences"] for resumed in manifest["resumed"]] == [[], []]


def test_a_language_model_with_dropout(server, render, tmp_path):
    """Its loss is a mean over tokens, of which parts have different numbers."""
    folder = render_point(render, tmp_path / "digits", "language_model")
    tiny = ("data.size=120", "model.width=16", "model.depth=1", "max_steps=6", "lr=0.1", "logger=none")
    options = (
        *tiny,
        "optimizer=sgd",
        "~optimizer.betas",
        "log.curves=false",
        "log.every=1",
        "batch_size=8",
        "limit_val_batches=2",
    )
    for processes in (1, 4):
        more = (f"name={processes}", "virtual_ranks=4", "model.dropout=0.2")
        done = server.run_together(folder / "train.py", *options, *more, processes=processes)
        assert done.code == 0, done.out
    assert_equal_bits(folder, "1", "4")
    for name, more in {"plain": (), "virtual": ("virtual_ranks=4",)}.items():
        assert server.run(folder / "train.py", *options, f"name={name}", *more).code == 0
    plain, virtual = (
        torch.load(the_run(folder, name) / "checkpoints/step-00000006.pt", weights_only=True)["model"]
        for name in ("plain", "virtual")
    )
    for name, weight in plain.items():
        torch.testing.assert_close(virtual[name], weight, rtol=1e-4, atol=1e-6)


def test_what_cannot_hold_is_refused_by_name(server, train, run, workspace):
    for overrides, words in {
        ("virtual_ranks=6",): "virtual_ranks=6 is not possible. It must be 2, 4, 8, 16 …",
        (
            "virtual_ranks=4",
            "batch_size=100",
            "accumulate=2",
        ): "batch_size=100 must be a multiple of virtual_ranks × accumulate = 8.",
        ("virtual_ranks=4", "compile=true"): "virtual_ranks=4 and compile=true exclude each other.",
        ("virtual_ranks=4", "sync_batchnorm=true"): "virtual_ranks=4 and sync_batchnorm=true exclude each other.",
        (
            "virtual_ranks=4",
            "model=cnn",
        ): "with this model. Each micro-batch changes stem.1.running_mean, stem.1.running_var ….",
    }.items():
        done = train(*OPTIONS[1:], *overrides)
        assert done.code == 2, done.out
        assert words in done.last
    assert run("three", 3, *OPTIONS, "virtual_ranks=4", "batch_size=48").out.count("Start 1, 2, 4") == 1
    done = train(*OPTIONS[1:], "virtual_ranks=4", "model=mlp", "drop_last=false", "batch_size=1296")
    assert "drop_last=false leaves 1 samples for the last 4 micro-batches" in done.last, done.out
    assert not (workspace / "runs").exists()
    assert train(*OPTIONS, "max_minutes=0.00001", "save_every_steps=1").code == 75
    done = train(f"resume={the_run(workspace)}", "virtual_ranks=4")
    assert done.code == 2
    assert "virtual_ranks cannot change in a resumed run" in done.last


def test_networks_trained_in_turn(run, workspace):
    """In each step, one network has no gradient."""
    snippets.add(workspace, "digits/distances.py", "digits/alternating.py")
    (workspace / "configs/data/pairs.yaml").write_text("_target_: .distances.Pairs\n")
    (workspace / "configs/model/two.yaml").write_text("_target_: .alternating.Two\n")
    options = ("data=pairs", "model=two", "task._target_=.alternating.Alternating", "batch_size=16")
    options += ("optimizer.groups=[{name: first, match: 'first.*'}, {name: second, match: '*'}]", "monitor=val/loss")
    options += ("monitor_mode=min", "epochs=5", "logger=none", "log.curves=false", "log.every=3", "virtual_ranks=4")
    for name, processes in {"one": 1, "two": 2}.items():
        done = run(name, processes, *options)
        assert done.code == 0, done.out
    assert_equal_bits(workspace, "one", "two")
