"""Every choice and every option, stopped and resumed: equal to the run that was never stopped.

The choices are the files in configs/. So a new choice is tested as soon as its file is there.
"""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import result, rows, the_run
from helpers.template import CONFIGS
from helpers.watching import BASE, DATA, KEPT, MODEL, SHORT, STOPS, TASK, assert_equal, batches


def stop_and_resume(
    run_watched, workspace: Path, options: tuple[str, ...], draw: random.Random, stops: int = 2
) -> Path:
    """Compare a whole run with one that random signals stop at random steps. Return the whole one."""
    run_watched("whole", *options, "workers=0")
    whole = the_run(workspace, "whole")
    for at in sorted(draw.sample(range(result(whole)["steps"]), stops)):
        by = draw.choice(list(STOPS))
        run_watched(
            "stopped", *options, f"workers={draw.choice((0, 1, 2))}", "resume=auto", at=at, by=by, code=STOPS[by]
        )
    run_watched("stopped", *options, f"workers={draw.choice((0, 1, 2))}", "resume=auto")
    assert_equal(whole, the_run(workspace, "stopped"))
    assert batches(workspace, "stopped") == batches(workspace, "whole")
    return whole


# ---------------------------------------------------------------- every choice

FILES = sorted(CONFIGS)

# What is run beside the file's own choice, where the general options do not suit it.
SMALL_BATCH = ("batch_size=4", "epochs=2", "limit_train_batches=2", "data.shape=[3,32,32]", "optimizer=sgd")
BESIDE = {
    "data/arrays": ("data.path=ARRAYS", "data.shift=1", "data.flip=true", *MODEL),
    "data/cifar10": ("data.root=DATA", "data.val_size=20", *MODEL),
    "data/fashion_mnist": ("data.root=DATA", "data.val_size=20", *MODEL),
    "data/mnist": ("data.root=DATA", "data.val_size=20", *MODEL),
    "data/digits": MODEL,
    "data/image_folder": ("data.root=PICTURES", "data.flip=true", *MODEL),
    "data/picture_table": ("data.root=PICTURES", "data.train=TABLE", *MODEL),
    "data/synthetic": (*DATA[1:], *MODEL),
    "model/cnn": ("model.width=4",),
    "model/mlp": MODEL[1:],
    "model/convnext_tiny": (*SMALL_BATCH, "optimizer.momentum=0", "optimizer.nesterov=false"),
    "model/resnet18": SMALL_BATCH,
    "model/resnet50": (*SMALL_BATCH, "optimizer.momentum=0", "optimizer.nesterov=false"),
    "model/timm": ("model.name=resnet10t", *SMALL_BATCH),
    "model/torchvision": ("model.name=mobilenet_v3_small", *SMALL_BATCH),
    "scheduler/plateau": ("scheduler.patience=0", "scheduler.factor=0.5", "val_every_steps=3"),
    "scheduler/torch": ("scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "+scheduler.T_max=3"),
    "scheduler/step": ("scheduler.step_size=1",),
    "scheduler/multistep": ("scheduler.milestones=[1,2,8]",),
    "scheduler/warmup_stable_decay": ("scheduler.warmup_fraction=0.3", "scheduler.decay_fraction=0.6"),
    "scheduler/constant": ("scheduler.warmup_steps=5",),
    "logger/wandb": ("logger.wandb.mode=offline",),
    "loss/cross_entropy": ("loss.label_smoothing=0.1",),
    "experiment/label_smoothing": ("epochs=3",),
    "experiment/finetune": ("data.root=PICTURES", "data.size=32", "model.pretrained=false", *SHORT),
}


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """Each config file and the overrides that choose it. A schedule is tried per step and per epoch."""
    found = []
    for file in FILES:
        group, name = file.split("/")
        if group == "sweep":  # chooses how runs are started: see the tests of sweeps below
            continue
        if file in ("loss/bce", "experiment/multilabel"):  # with a task of their own: see pictures/test_tables.py
            continue
        if file == "data/huggingface":  # needs a package: see pictures/test_huggingface_pictures.py
            continue
        beside = BESIDE.get(file, ())
        general = tuple(o for key, o in (("data", DATA), ("model", MODEL)) if key != group for o in o)
        general = () if group == "data" or "data.root=PICTURES" in beside else general  # other pictures
        options = (*TASK, *SHORT, *general, *KEPT, f"{group}={name}", *beside)
        options = tuple(o for o in options if o != TASK[1]) if group == "logger" else options
        text = CONFIGS[file].read_text()
        if group == "scheduler" and "\ninterval:" in text:
            found += [(f"{file} by {unit}", (*options, f"scheduler.interval={unit}")) for unit in ("step", "epoch")]
        else:
            found.append((file, options))
    return found


def write_torchvision_files(root: Path, name: str, workspace: Path) -> None:
    """More than a hundred pictures in torchvision's layout of MNIST, FashionMNIST or CIFAR-10."""
    noise = np.random.default_rng(0)
    if name == "cifar10":
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        for file, count in (("data_batch_1", 120), ("test_batch", 10)):
            pixels = noise.integers(0, 256, (count, 3072), dtype=np.uint8)
            (folder / file).write_bytes(pickle.dumps({"data": pixels, "labels": [n % 10 for n in range(count)]}))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {n}" for n in range(10)]}))
        with open(workspace / "digits/__init__.py", "a") as file:  # ours are not the published files
            file.write(
                "\nfrom torchvision.datasets import CIFAR10\n"
                "CIFAR10.train_list, CIFAR10.test_list = [['data_batch_1', None]], [['test_batch', None]]\n"
                "CIFAR10.meta = {'filename': 'batches.meta', 'key': 'label_names', 'md5': None}\n"
            )
        return
    folder = root / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name] / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 120), ("t10k", 10)):
        images = noise.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{part}-{kind}").write_bytes(header + array.tobytes())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_files_of_mnist_are_read_as_torchvision_reads_them(engine, workspace, tmp_path, name):
    import torchvision

    module, kind = engine("datasets.torchvision"), {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    write_torchvision_files(tmp_path, name, workspace)
    for train in (True, False):
        assert module._read_raw(kind, tmp_path, train) is not None
        images, labels, classes = module._load(kind, str(tmp_path), train)
        theirs = getattr(torchvision.datasets, kind)(tmp_path, train)
        assert classes == theirs.classes
        assert (images[..., 0] == theirs.data.numpy()).all()
        assert (labels == theirs.targets.numpy()).all()
    images = next(tmp_path.rglob("train-images-idx3-ubyte"))
    whole = images.read_bytes()
    for damaged in (whole[:-1], b"x" + whole[1:], b""):
        images.write_bytes(damaged)
        with pytest.raises(engine("errors").UserError, match=r"cannot be read .*delete them"):
            module._load(kind, str(tmp_path), True)


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        pytest.param(*case, id=case[0], marks=[pytest.mark.thorough] if case[0].startswith("debug/") else [])
        for case in cases()
    ],
)
def test_every_choice_resumes_exactly(run_watched, workspace, request, tmp_path, choice, options):
    group, name = choice.split()[0].split("/")
    assert (workspace / f"configs/{group}/{name}.yaml").is_file()
    if "data.root=DATA" in options:
        write_torchvision_files(tmp_path / "data", name, workspace)
        options = tuple(o.replace("DATA", str(tmp_path / "data")) for o in options)
    if "data.path=ARRAYS" in options:
        draw = np.random.default_rng(0)
        np.savez(tmp_path / "a.npz", x=draw.integers(0, 256, (120, 8, 8), dtype=np.uint8), y=np.arange(120) % 10)
        options = tuple(o.replace("ARRAYS", str(tmp_path / "a.npz")) for o in options)
    if "data.root=PICTURES" in options:
        pictures = request.getfixturevalue("pictures")
        options = tuple(o.replace("=PICTURES", f"='{pictures}'") for o in options)
        table = tmp_path / "pictures.csv"
        paths = [path.relative_to(pictures) for path in sorted(Path(pictures).rglob("*.*"))]
        table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
        options = tuple(o.replace("=TABLE", f"='{table}'") for o in options)
    whole = stop_and_resume(run_watched, workspace, options, random.Random(choice))
    if group == "scheduler":  # else it would not matter what the resumed run knows of it
        assert len({rate for row in rows(whole) for key, rate in row.items() if key.startswith("lr/")}) > 1


def test_the_choices_above_are_those_of_a_project(project):
    own = {str(p.relative_to(project / "configs"))[:-5] for p in (project / "configs").glob("*/*.yaml")}
    assert own == set(FILES)
    assert BESIDE.keys() <= own


# ---------------------------------------------------------------- every option

ALL = ("ema_decay=0.8", "accumulate=4", "clip_grad_norm=0.5", "drop_last=false", "mix=mixup", "mix.alpha=1.0")
OPTIONS = [
    ("ema_decay=0.8",),
    ("accumulate=4",),
    ("clip_grad_norm=0.1",),
    ("clip_grad_value=0.01",),
    ("drop_last=false", "limit_train_batches=null"),
    ("precision=bf16",),
    ("channels_last=true", "model=cnn", "~model.hidden", "model.width=4"),
    ("optimizer.layer_decay=0.5",),
    ("optimizer.no_decay_norm_bias=true",),
    ("optimizer.groups=[{name: head, match: 'layers.4.*'}, {name: rest, match: '*', lr_scale: 0.1}]",),
    ("optimizer.groups=[{name: head, match: 'layers.4.*'}, {name: frozen, match: '*', lr_scale: 0}]",),
    ("early_stopping_patience=0", "val_every_steps=2"),
    ("val_every_steps=5",),
    ("val_every_epochs=0",),
    ("save_every_steps=null", "save_every_epochs=0"),
    ("max_steps=14",),
    ("deterministic=false",),
    ("seed=12345678901234567",),
    (*ALL, "optimizer.layer_decay=0.5", "precision=bf16", "scheduler=plateau", "scheduler.patience=0"),
]


# Statistics of `log.windows`: within a log interval, over one, over an epoch and over the whole run.
STATISTICS = [
    f"{{source: loss, name: {statistic}_{window}, statistic: {statistic}, window: {window}}}"
    for statistic in ("mean", "max", "min", "std", "current")
    for window in (3, 8, "epoch", "global")
]
OPTIONS += [(f"log.windows=[{','.join(STATISTICS)}]",), ("log.by=epoch",)]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options)[:60])
def test_every_option_resumes_exactly(run_watched, workspace, options):
    if "model=cnn" in options:
        base, options = tuple(o for o in BASE if o not in MODEL), tuple(o for o in options if o != "~model.hidden")
    else:
        base = BASE
    whole = stop_and_resume(run_watched, workspace, (*base, *options), random.Random(" ".join(options)))
    if "log.windows" in options[0]:
        assert sum(any(key.endswith("std_8") for key in row) for row in rows(whole)) > 2


# ---------------------------------------------------------------- many points of one history


def test_twenty_random_stops_and_every_epochs_end(run_watched, workspace, pictures):
    """60 steps in three epochs, stopped after random steps and at each epoch's first and last."""
    options = (*TASK, *MODEL, "data=image_folder", f"data.root='{pictures}'", "data.flip=true", "epochs=3")
    options = (*options, "batch_size=4", "limit_train_batches=20", "log.every=7", "ema_decay=0.9")
    draw = random.Random(4)
    run_watched("whole", *options, "workers=0")
    assert result(the_run(workspace, "whole"))["steps"] == 60
    ends = {0, 19, 20, 39, 40, 59}
    for at in sorted(ends | set(draw.sample(sorted(set(range(60)) - ends), 20))):
        by = draw.choice(("SIGTERM", "SIGINT", "SIGUSR1"))
        workers = f"workers={draw.choice((0, 1, 2, 4))}"
        run_watched("stopped", *options, "resume=auto", workers, at=at, by=by, code=75)
    run_watched("stopped", *options, "resume=auto", "workers=0")
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "stopped"))
    assert batches(workspace, "stopped") == batches(workspace, "whole")


# ---------------------------------------------------------------- sweeps


def test_the_jobs_of_a_sweep_resume_exactly(run_watched, workspace):
    options = ("-m", "lr=0.01,0.02", *BASE, "ema_decay=0.8")
    run_watched("whole", *options)
    # A stop ends the sweep; where its first job is past that step or finished, its second one is stopped.
    for at, by in ((5, "SIGTERM"), (13, "SIGKILL"), (14, "SIGTERM"), (3, "SIGKILL"), (3, "SIGTERM"), (17, "SIGUSR1")):
        run_watched("stopped", *options, "resume=auto", "workers=1", at=at, by=by, code=STOPS[by])
    run_watched("stopped", *options, "resume=auto")
    folders = [[p for p in (workspace / "runs" / n).iterdir() if p.name[0] != "."] for n in ("whole", "stopped")]
    assert [len(jobs) for jobs in folders] == [2, 2]
    for whole, stopped in zip(*(sorted(jobs, key=rate) for jobs in folders), strict=True):
        assert_equal(whole, stopped)


def rate(folder: Path) -> str:
    return next(o for o in json.loads((folder / "manifest.json").read_text())["overrides"] if o.startswith("lr="))
