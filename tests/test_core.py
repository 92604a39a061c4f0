"""The training step against loops written by hand, its order, and the switches around it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.machine import NEEDS_COMPILER, ON_GPU
from helpers.runs import result, rows, the_run
from helpers.template import CONFIGS
from torch import nn


@pytest.fixture(params=["cpu", ON_GPU])
def device(request):
    return request.param


@pytest.fixture
def looped(looped, device):
    """On each device, in the precision that is exact."""
    return lambda *overrides: looped("logger=none", f"device={device}", "precision=fp32", *overrides)


def batches_of(loop, steps):
    """What the loop's training reads, as (images, labels)."""
    read = iter(loop.parts.train.read(0, steps))
    return [[next(read) for _ in loop.parts.train.plan.counts(step)] for step in range(steps)]


GROUPS = "optimizer.groups=[{name: head, match: 'layers.4.*'}, {name: rest, match: '*', lr_scale: 0.1}]"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_equal_to_a_loop_written_by_hand(looped, device, optimizer, accumulate):
    loop = looped(
        "model=mlp", f"optimizer={optimizer}", GROUPS, "scheduler.warmup_steps=5", "scheduler.warmup_epochs=0",
        f"accumulate={accumulate}", "clip_grad_norm=0.5", "epochs=1", "lr=0.05",
    )  # fmt: skip
    import copy

    model = copy.deepcopy(loop.parts.model)
    steps = loop.parts.total_steps
    data = batches_of(loop, steps)
    rates = []
    inner_step = loop.parts.optimizer.step
    loop.parts.optimizer.step = lambda *a, **k: (
        rates.append([g["lr"] for g in loop.parts.optimizer.param_groups]),
        inner_step(*a, **k),
    )
    loop.fit()

    head = list(model.layers[4].parameters())
    rest = [p for n, p in model.named_parameters() if not n.startswith("layers.4.")]
    if optimizer == "sgd":
        by_hand = torch.optim.SGD(
            [{"params": head}, {"params": rest}], lr=1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )
    else:
        by_hand = torch.optim.AdamW([{"params": head}, {"params": rest}], lr=1, weight_decay=0.05, fused=True)
    for step in range(steps):
        for group, rate in zip(by_hand.param_groups, rates[step], strict=True):
            group["lr"] = rate
        by_hand.zero_grad()
        for images, labels in data[step]:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            (loss / accumulate).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        by_hand.step()
    assert rates[0] == pytest.approx([0.05 / 6, 0.005 / 6])
    for (name, mine), (_, theirs) in zip(model.named_parameters(), loop.parts.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_order_of_a_step(looped):
    loop = looped("accumulate=2", "ema_decay=0.9", "clip_grad_norm=1", "max_steps=2", "val_every_epochs=0")
    p, order = loop.parts, []

    def spy(owner, name, label):
        inner = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: (order.append(label), inner(*a, **k))[1])

    spy(p, "zero_grad", "zero_grad")
    spy(loop, "next_batch", "batch")
    spy(loop, "backward", "backward")
    spy(loop, "clip_gradients", "clip")
    p.optimizer.register_step_post_hook(lambda *_: order.append("optimizer"))
    spy(p.scheduler, "step", "scheduler")
    spy(p.averaged, "update", "ema")
    loop.fit()
    once = ["zero_grad", "batch", "backward", "batch", "backward", "clip", "optimizer", "scheduler", "ema"]
    assert order == once * 2


def test_micro_batches_are_weighted_by_what_their_means_were_taken_over(looped, engine):
    api = engine("api")

    count = torch.zeros(())

    def masked(model, batch, ctx):
        images, labels = batch
        keep = labels < 5  # a different number in every micro-batch
        nonlocal count
        count = count.to(labels.device).copy_(keep.sum())  # overwritten by the next, as a CUDA graph's are
        losses = nn.functional.cross_entropy(model(images), labels, reduction="none")
        return {"loss": api.Mean((losses * keep).sum() / keep.sum().clamp(min=1), count)}

    weights = []
    for accumulate in (1, 4):
        loop = looped("model=mlp", f"accumulate={accumulate}", "max_steps=5", "optimizer=sgd", "monitor=val/loss")
        loop.parts.task.training_step = loop.parts.task.validation_step = masked
        loop.fit()
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
        logged = rows(loop.run.folder)[0]["train/loss"]
        assert logged == pytest.approx(2.2, abs=0.5)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_gradients_of_micro_batches_outlive_the_next_one_of_a_cuda_graph(looped, monkeypatch):
    """A CUDA graph overwrites the memory of its gradients when the model is called again."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    weights = []
    for compiled in ("false", "reduce-overhead"):
        loop, given = looped("model=mlp", "accumulate=4", f"compile={compiled}", "max_steps=2"), []

        def overwriting(images, model=loop.forward, given=given):
            for grad in given:
                grad.fill_(float("nan"))
            given.clear()
            return model(images)

        if compiled != "false":
            loop.forward = overwriting
            for parameter in loop.parts.model.parameters():
                parameter.register_post_accumulate_grad_hook(lambda p, given=given: given.append(p.grad))
        loop.fit()
        assert (len(given) > 0) == (compiled != "false")
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
    assert torch.equal(*weights)


def test_an_incomplete_last_batch_counts_by_its_samples(looped):
    weights = []
    for accumulate in (1, 4):
        loop = looped(
            "model=mlp", f"accumulate={accumulate}", "drop_last=false", "batch_size=100", "epochs=2", "optimizer=sgd"
        )
        loop.fit()
        weights.append(torch.cat([p.detach().flatten().cpu() for p in loop.parts.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_every_validation_sample_counts_once(looped, device):
    loop = looped("batch_size=48", "epochs=1")
    loop.fit()
    model = loop.parts.model.eval()
    dataset = loop.parts.data.split("val")
    images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    with torch.no_grad():
        logits = model(torch.stack(images).to(device)).cpu()
    expected = (logits.argmax(1) == torch.tensor(labels)).double().mean().item()
    (row,) = [row for row in rows(loop.run.folder) if "val/acc" in row]
    assert row["val/acc"] == pytest.approx(expected, abs=1e-7)
    expected = nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    assert row["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_averaged_weights(looped):
    loop = looped("ema_decay=0.9", "max_steps=3")
    expected = {n: p.detach().clone() for n, p in loop.parts.model.named_parameters()}
    inner = loop.parts.averaged.update

    def update(model):
        inner(model)
        for name, p in model.named_parameters():
            expected[name].lerp_(p.detach(), 0.1)

    loop.parts.averaged.update = update
    loop.fit()
    for name, p in loop.parts.averaged.model.named_parameters():
        torch.testing.assert_close(p, expected[name])
    buffers = dict(loop.parts.model.named_buffers())
    assert {b.dtype for b in buffers.values()} == {torch.float32, torch.int64}
    for name, b in loop.parts.averaged.model.named_buffers():
        assert torch.equal(b, buffers[name])


def test_averaged_buffers_take_a_call_for_each_type(looped, monkeypatch):
    loop, calls = looped("ema_decay=0.9", "max_steps=1"), []
    copy = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda own, new: (calls.append(len(own)), copy(own, new)))
    loop.parts.averaged.update(loop.parts.model)
    assert len(calls) == 2
    assert sum(calls) == len(list(loop.parts.model.buffers()))


def test_terms_of_a_loss_are_weighted_and_logged(train, workspace):
    options = ("loss=terms", "loss.terms.ce.weight=2", "loss.terms.margin.weight=0.5", "epochs=1", "logger=none")
    done = train(*options, "+loss.terms.extra={weight: 1.0, loss: {_target_: .scaled.Scaled}}")
    assert done.code == 2  # there is no such module
    (workspace / "digits/scaled.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Scaled(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.scale = nn.Parameter(torch.ones(()))\n\n"
        "    def forward(self, logits, labels):\n        return (self.scale - 2) ** 2\n"
    )
    done = train(*options, "+loss.terms.extra={weight: 1.0, loss: {_target_: .scaled.Scaled}}")
    assert done.code == 0, done.out
    for prefix in ("train", "train_epoch", "val"):
        row = next(row for row in rows(the_run(workspace)) if f"{prefix}/ce" in row)
        total = 2 * row[f"{prefix}/ce"] + 0.5 * row[f"{prefix}/margin"] + row[f"{prefix}/extra"]
        assert row[f"{prefix}/loss"] == pytest.approx(total, rel=1e-5)
    assert row["val/extra"] < 1, "the loss's own parameter was trained"


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_is_keyed(train, workspace, mix):
    options = (f"mix={mix}", "epochs=1", "logger=none")
    for name in ("a", "b"):
        assert train(*options, f"name={name}", f"log.every={3 if name == 'a' else 50}").code == 0
    assert train("epochs=1", "logger=none", "name=c").code == 0
    hashes = [result(the_run(workspace, name))["weights_sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_early_stopping(train, workspace):
    options = ("early_stopping_patience=1", "epochs=30", "logger=none", "lr=0.02")
    assert train(*options, "name=whole").code == 0
    whole = the_run(workspace, "whole")
    values = [row["val/acc"] for row in rows(whole) if "val/acc" in row]
    assert len(values) < 30
    assert max(values[:-2]) == max(values), "the last two were not better"
    assert train(*options, "name=cut", "max_minutes=0.0001").code == 75
    assert train(*options, "name=cut", "resume=auto").code == 0
    assert result(the_run(workspace, "cut")) == result(whole)


def test_metrics_of_torchmetrics(train, workspace):
    task = workspace / "digits/task.py"
    task.write_text(
        task.read_text()
        + """
    def validation_step(self, model, batch, ctx):
        ctx.metrics["f1"].update(model(batch[0]), batch[1])
        return super().validation_step(model, batch, ctx)

    def metrics(self, info):
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
        return {"f1": MulticlassF1Score(info["classes"])}
"""
    )
    done = train("epochs=2", "logger=none", "monitor=val/f1")
    assert done.code == 0, done.out
    values = [row["val/f1"] for row in rows(the_run(workspace)) if "val/f1" in row]
    assert result(the_run(workspace))["best"] == max(values)
    assert 0 < values[0] <= 1


@pytest.mark.parametrize(
    "overrides",
    [
        ("precision=bf16",),
        ("loss.label_smoothing=0.1",),
        ("clip_grad_value=0.01",),
        ("clip_grad_norm=0.01", "clip_grad_value=0.1"),
    ],
    ids=" ".join,
)
def test_a_switch_changes_the_result(train, workspace, overrides):
    assert train("epochs=1", "logger=none", "name=plain").code == 0
    done = train("epochs=1", "logger=none", "name=switched", *overrides)
    assert done.code == 0, done.out
    plain, switched = (result(the_run(workspace, n))["weights_sha256"] for n in ("plain", "switched"))
    assert plain != switched
    if "clip" in overrides[0]:
        assert "train/grad_norm" in rows(the_run(workspace, "switched"))[0]


def test_values_are_clipped(looped):
    loop = looped("clip_grad_value=0.001", "max_steps=1", "val_every_epochs=0")
    largest = []
    loop.parts.optimizer.register_step_pre_hook(
        lambda *_: largest.append(max(p.grad.abs().max().item() for p in loop.parts.parameters.values()))
    )
    loop.fit()
    assert largest == [pytest.approx(0.001)]


@pytest.mark.parametrize("mix", [False, True])
def test_channels_last_reaches_weights_and_batches(looped, monkeypatch, mix):
    loop = looped("channels_last=true", "data=synthetic", "data.size=64", "max_steps=1")
    seen = []
    step = loop.parts.task.training_step
    loop.parts.task.training_step = lambda model, batch, ctx: (seen.append(batch[0]), step(model, batch, ctx))[1]
    if mix:  # on a GPU, MixUp loses the layout
        monkeypatch.setattr(loop.parts, "mix", lambda images, labels: (images.contiguous(), labels))
    loop.fit()
    layouts = [seen[0], *(p for p in loop.parts.model.parameters() if p.ndim == 4 and p.shape[-1] > 1)]
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in layouts)
    assert not seen[0].is_contiguous()


def test_the_fingerprint_of_a_gpu_names_its_libraries(engine):
    device = engine("machine.device")
    assert device.libraries(torch.device("cuda", 0)).keys() == {"CUDA", "cuDNN"}
    assert device.libraries(torch.device("cpu")) == {}


@pytest.mark.parametrize(("value", "enabled", "warns"), [("true", 1, 0), ("warn", 1, 1), ("false", 0, 0)])
def test_determinism(looped, value, enabled, warns):
    looped(f"deterministic={value}")
    assert torch.are_deterministic_algorithms_enabled() == enabled
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
    assert torch.backends.cudnn.deterministic == enabled
    assert torch.backends.cudnn.benchmark == (not enabled)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers_are_fused(looped, optimizer):
    assert looped(f"optimizer={optimizer}").parts.optimizer.defaults["fused"] is True


def test_limits_and_frequencies(train, workspace):
    done = train("limit_train_batches=5", "limit_val_batches=2", "epochs=3", "val_every_epochs=2", "logger=none")
    assert done.code == 0, done.out
    assert result(the_run(workspace))["steps"] == 15
    assert [row["step"] for row in rows(the_run(workspace)) if "val/acc" in row] == [10, 15]
    (accuracy, *_) = [row["val/acc"] for row in rows(the_run(workspace)) if "val/acc" in row]
    assert accuracy * 128 == pytest.approx(round(accuracy * 128), abs=1e-4), "a share of two batches of 64"


def test_what_a_task_and_a_data_set_must_have(train, workspace):
    task = workspace / "digits/task.py"
    task.write_text(task.read_text().replace("def training_step", "def trainingstep"))
    done = train()
    assert done.code == 2
    assert "training_step" in done.last
    assert not (workspace / "runs").exists()


@NEEDS_COMPILER
def test_compiled_state_has_clean_keys(train, workspace):
    done = train("epochs=1", "logger=none", "compile=true", "max_steps=2", "model=mlp")
    assert done.code == 0, done.out
    state = torch.load(the_run(workspace) / "checkpoints/best.pt", weights_only=True)
    assert all("_orig_mod" not in key for key in [*state["model"], *state["optimizer"]])


# ---------------------------------------------------------------- weights to start from


def test_init_from(train, workspace, tmp_path):
    assert train("epochs=2", "logger=none", "name=first").code == 0
    best = the_run(workspace, "first") / "checkpoints/best.pt"
    done = train("epochs=1", "logger=none", "name=second", f"init_from={best}", "lr=1e-8")
    assert done.code == 0, done.out
    assert "tensors of the model." in done.out
    assert result(the_run(workspace, "second"))["best"] == pytest.approx(
        result(the_run(workspace, "first"))["best"], abs=0.02
    )
    model = torch.load(best, weights_only=True)["model"]
    torch.save({f"module.{k}": v for k, v in model.items() if "head" not in k}, tmp_path / "renamed.pt")
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}")
    assert done.code == 2
    assert "module." in done.last
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}", "init_rename=['^module[.]=>']", "logger=none")
    assert done.code == 0, done.out
    assert "missing in the file, left as initialised: head.weight" in done.out
    done = train("epochs=1", "init_from=/nowhere.pt")
    assert done.code == 2
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert train("epochs=1", f"init_from={tmp_path / 'junk.pt'}").code == 2


def test_init_from_safetensors(train, workspace, tmp_path):
    from safetensors.torch import save_file

    assert train("epochs=1", "logger=none", "name=first").code == 0
    state = torch.load(the_run(workspace, "first") / "checkpoints/best.pt", weights_only=True)["model"]
    save_file(state, tmp_path / "weights.safetensors")
    done = train("epochs=1", "logger=none", f"init_from={tmp_path / 'weights.safetensors'}")
    assert done.code == 0, done.out
    assert f"{len(state)} of {len(state)} tensors" in done.out


# ---------------------------------------------------------------- several processes


def torchrun(workspace: Path, *overrides: str, processes: int = 2, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    settings |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **env}
    return subprocess.run(
        [*command, "train.py", *overrides], cwd=workspace, env=settings, text=True, capture_output=True, timeout=300
    )


GROUP_NORM = """
from torch import nn

class Normed(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.cuda
def test_two_gpus_train(workspace):
    done = torchrun(workspace, "epochs=2", "logger=none", "sync_batchnorm=true", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(the_run(workspace))["steps"] == 40


def test_two_processes_train_what_one_does(train, train_together, workspace):
    (workspace / "digits/models/normed.py").write_text(GROUP_NORM)
    (workspace / "configs/model/normed.yaml").write_text("_target_: .models.normed.Normed\n")
    options = ("model=normed", "epochs=2", "logger=none", "optimizer=sgd", "log.every=7")
    done = train_together(*options, "name=two", "accumulate=2", "drop_last=false", "batch_size=100")
    assert done.code == 0, done.out
    done = train(*options, "name=one", "accumulate=4", "drop_last=false", "batch_size=100")
    assert done.code == 0, done.out
    one, two = the_run(workspace, "one"), the_run(workspace, "two")
    weights = [torch.load(f / "checkpoints/step-00000026.pt", weights_only=True)["model"] for f in (one, two)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith("time/"):
                assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-6), key
    assert json.loads((two / "manifest.json").read_text())["fingerprint"]["world_size"] == 2


def test_a_mistake_is_told_where_other_processes_never_come(server, workspace):
    script, env = workspace / "train.py", {"RANK": "0", "WORLD_SIZE": "2"}
    done = server.run(script, "lrr=1", **env)  # nor does MASTER_ADDR say where they would
    assert done.code == 2
    assert done.out.count("\n") == 1
    assert "Did you mean 'lr'?" in done.out
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    waiting = server.start(script, "lrr=1", **env, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    waiting.wait_for("Did you mean")
    time.sleep(0.5)
    waiting.send(signal.SIGINT)
    assert waiting.result().code == 128 + signal.SIGINT


def test_a_task_that_exits_ends_two_processes(train_together, workspace):
    (workspace / "digits/leaving.py").write_text(
        "import sys\nfrom .task import Classification\n\n"
        "class Leaving(Classification):\n    def training_step(self, model, batch, ctx):\n"
        "        return sys.exit(0) if ctx.step == 2 else super().training_step(model, batch, ctx)\n"
    )
    done = train_together("task._target_=.leaving.Leaving", "model=mlp", "logger=none")
    assert done.code == 0, done.out
    assert "Traceback" not in done.out


def test_a_run_of_two_processes_stops_and_goes_on_with_one(train, workspace):
    (workspace / "digits/stopping.py").write_text(
        "import os, signal\nfrom .task import Classification\n\nclass Stopping(Classification):\n"
        "    def training_step(self, model, batch, ctx):\n"
        "        if os.environ.get('RANK') == '1' and ctx.step == 3:\n"
        "            import warnings\n            warnings.warn('heard from afar')\n"
        "        if os.environ.get('RANK') == '1' and ctx.step == 23:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return super().training_step(model, batch, ctx)\n"
    )
    options = ("task._target_=.stopping.Stopping", "epochs=2", "logger=none")
    done = torchrun(workspace, *options)
    assert done.returncode == 1
    folder = the_run(workspace)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "stopped", done.stdout + done.stderr
    (line,) = [line for line in (folder / "train.log").read_text().splitlines() if "heard from afar" in line]
    assert "rank 1" in line
    done = train(f"resume={folder}")
    assert done.code == 0, done.out
    assert "world_size 2 → 1" in done.out
    assert result(folder)["steps"] == 40
    assert [row["step"] for row in rows(folder) if "val/acc" in row] == [20, 40]


def test_two_processes_end_where_there_is_nothing_left_to_do(train_together):
    done = train_together("model=mlp", "max_steps=2", "logger=none", "name=two")
    assert done.code == 0
    again = train_together("model=mlp", "max_steps=2", "logger=none", "name=two", "resume=auto")
    assert again.code == 0
    assert "Nothing is left to do" in again.out


def test_a_mistake_under_torchrun_is_said_once(train_together, workspace):
    done = torchrun(workspace, "lrr=1")
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("Did you mean 'lr'?") == 1
    assert "Unable to shutdown" not in done.stderr, "no process waits for one that has ended"
    done = train_together("--help")
    assert done.code == 0
    assert done.out.count("batch_size=") == 1
    done = train_together("batch_size=33")
    assert done.code == 2
    assert done.out.count("batch_size=33") == 1
    assert "multiple of 2" in done.out
    done = train_together("sync_batchnorm=true")
    assert done.code == 2
    assert done.out.count("between GPUs only") == 1
    assert not (workspace / "runs").exists()


# ---------------------------------------------------------------- mistakes

WRONG = [
    (["mix=mixup", "data=lines"], "mix"),
    (["precision=tf32"], "precision=tf32"),
    (["clip_grad_norm=0"], "clip_grad_norm"),
    (["early_stopping_patience=-1"], "early_stopping_patience"),
    (["loss=terms", "loss.terms=null"], "loss"),
    (["loss=terms", "loss.terms.ce.weight=much"], "loss.terms.ce.weight"),
    (["optimizer.layer_decay=2"], "layer_decay"),
    (["optimizer.groups=[{match: 'x*'}]"], "'x*'"),
    (["optimizer.groups=3"], "optimizer.groups"),
]


def test_a_share_that_cannot_be_computed(train, workspace):
    (workspace / "digits/sharing.py").write_text(
        "from .engine.api import Share\nfrom .task import Classification\n\n"
        "class Sharing(Classification):\n    def validation_step(self, model, batch, ctx):\n"
        "        share = Share(lambda labels: self.nothing[labels], batch[1])\n"
        "        return {**super().validation_step(model, batch, ctx), 'share': share}\n"
    )
    done = train("task._target_=.sharing.Sharing", "logger=none")
    assert done.code == 2
    assert "has no attribute 'nothing'" in done.last
    assert "Traceback" not in done.out
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(("overrides", "named"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_wrong_combinations(train, workspace, overrides, named):
    (workspace / "digits/data/lines.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom ..engine.api import Data\n\n"
        "class Lines(Data):\n    info = {'shape': (1, 8, 8)}\n\n    def split(self, name):\n"
        "        return TensorDataset(torch.randn(99, 1, 8, 8), torch.zeros(99).long())\n"
    )
    (workspace / "configs/data/lines.yaml").write_text("_target_: .data.lines.Lines\n")
    done = train(*overrides, *(["+model.classes=3"] if "data=lines" in overrides else []))
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert named in done.last
    assert not (workspace / "runs").exists()


# ---------------------------------------------------------------- every shipped choice

CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONFIGS.values()
    if path.parent.name not in ("data", "sweep") and path.stem not in ("torch", "torchvision")
)


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["=".join(c) for c in CHOICES])
def test_every_choice_trains_three_steps(train, workspace, group, choice):
    data = ["data=synthetic", "data.size=96"] if group == "model" else []  # some shrink 8×8 to nothing
    data += ["logger.wandb.mode=offline"] if choice == "wandb" else []
    done = train(f"{group}={choice}", *data, "max_steps=3", "name=choice", "batch_size=16", "limit_val_batches=2",
                 "val_every_steps=2")  # fmt: skip
    assert done.code == 0, done.out
    assert result(the_run(workspace, "choice"))["steps"] == 3
