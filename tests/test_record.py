"""`record` logs a value from anywhere inside a forward pass."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import snippets
from helpers.machine import NEEDS_COMPILER
from helpers.runs import logged, rows, the_run


@pytest.fixture
def recording(workspace):
    snippets.add(workspace, "digits/recording.py")
    (workspace / "configs/model/recording.yaml").write_text("_target_: .recording.Recording\n")
    return workspace


RECORDED = ("model=recording", "epochs=1", "logger=none", "log.every=1", "max_steps=8", "batch_size=32", "lr=0.01")
KEYS = {"loss", "acc", "scale", "block", "few", "logits"}


def values_of(workspace: Path, name: str) -> list[dict]:
    kept = [
        {k: v for k, v in row.items() if k.startswith(("train", "val"))} for row in logged(the_run(workspace, name))
    ]
    assert len(kept) == 9
    assert all(row.keys() == {f"train/{key}" for key in KEYS} for row in kept[:8])
    assert kept[8].keys() == {f"val/{key}" for key in KEYS}
    return kept


def test_a_forward_that_is_repeated_in_the_backward_records_once(train, recording):
    for name, checkpointed in (("plain", "false"), ("checkpointed", "true")):
        done = train(*RECORDED, f"name={name}", f"+model.checkpointed={checkpointed}")
        assert done.code == 0, done.out
    assert values_of(recording, "plain") == values_of(recording, "checkpointed")


@pytest.fixture
def module(engine):
    """The model above, in the package that `engine` imports."""
    engine("api")
    module = ModuleType("digits.recording")
    module.__package__ = "digits"
    exec(snippets.text("digits/recording.py"), module.__dict__)
    return module


def test_several_records_of_a_step_are_averaged(module, windows, engine):
    """The mean is over all calls of a module that is used twice, and of another one with the same name."""
    api, model, seen = engine("api"), module.Recording(10), []
    for block in (model.block, model.other):
        block.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours = windows.Statistics(torch.device("cpu"))
    with api.recording() as recorded:
        model(torch.randn(5, 64))
    ours.add(0, {"loss": torch.zeros(()), **recorded}, 5)
    ours.fetch()
    means = ours.means()
    assert means["block"] == pytest.approx(torch.stack([y.square().mean() for y in seen]).mean().item())
    weights = torch.stack([(y[0] > 0).sum() for y in seen])
    expected = (torch.stack([y[0].mean() for y in seen]) * weights).sum() / weights.sum()
    assert means["few"] == pytest.approx(expected.item())
    assert all(not value.requires_grad for values in recorded.values() for value in values if torch.is_tensor(value))


def test_what_a_step_returns_takes_the_place_of_what_it_records(looped, engine):
    api, loop = engine("api"), looped("max_steps=1", "limit_val_batches=1", "logger=none")
    step = loop.parts.task.training_step

    def training_step(model, batch, ctx):
        api.record("acc", torch.tensor(-1.0))
        api.record("other", torch.tensor(-1.0))
        return step(model, batch, ctx)

    loop.parts.task.training_step = training_step
    loop.fit()
    row = rows(loop.run.folder)[0]
    assert row["train/acc"] >= 0
    assert row["train/other"] == -1


@pytest.mark.parametrize("value", ["0.5", "torch.zeros(3)", "None"])
def test_what_cannot_be_recorded_is_named(train, recording, value):
    path = recording / "digits/recording.py"
    path.write_text(path.read_text().replace('record("logits", total)', f'record("logits", {value})'))
    done = train(*RECORDED)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert "'logits'" in done.last
    assert not (recording / "runs").exists()


def test_recording_leaves_a_compiled_graph_whole(module, engine):
    """There is one graph without a break. Every call records the right values and keeps nothing of the graph."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    api, counter = engine("api"), CompileCounter()
    model = module.Recording(10)
    compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept = []
    for _ in range(5):
        images = torch.randn(5, 64)
        both = []
        for forward in (compiled, model):
            with api.recording() as recorded:
                logits = forward(images)
            both.append(recorded)
        assert both[0].keys() == both[1].keys() == KEYS - {"loss", "acc"}
        for key, values in both[0].items():
            torch.testing.assert_close(values, both[1][key])
            assert len(values) == (3 if key in ("block", "few") else 1)
        kept.append(both[0]["scale"][0])
        assert kept[-1].grad_fn is None
        logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counter.frame_count == 1, "compiled once"
    assert len({float(scale) for scale in kept}) == 5, "each step's own value, not the last one's"
    compiled(images)  # outside of a step: it records nothing and does not fail
    assert not api._recorded


@NEEDS_COMPILER
def test_recording_in_a_compiled_run(train, recording):
    done = train(*RECORDED, "name=plain")
    assert done.code == 0, done.out
    done = train(*RECORDED, "name=compiled", "compile=true")
    assert done.code == 0, done.out
    assert "graph break" not in done.out
    for plain, compiled in zip(values_of(recording, "plain"), values_of(recording, "compiled"), strict=True):
        assert plain == pytest.approx(compiled, rel=1e-3, abs=1e-5)


def test_recording_on_two_processes(recording, train, train_together):
    done = train_together(*RECORDED, "name=two")
    assert done.code == 0, done.out
    assert train(*RECORDED, "name=one", "accumulate=2").code == 0
    for one, two in zip(values_of(recording, "one"), values_of(recording, "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
