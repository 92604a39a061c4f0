"""The command line: a mistake ends in one sentence and exit code 2, before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MISTAKES = [
    (["lrr=0.1"], "'lrr'. Did you mean 'lr'?"),
    (["+lrr=0.1"], "'lrr'. Did you mean 'lr'?"),
    (["++lrr=0.1"], "'lrr'. Did you mean 'lr'?"),
    (["optimizer.lr=0.1"], "optimizer.lr cannot be set. Set lr at the top level."),
    (["model.widht=3"], "'model.widht'. Did you mean 'model.width'?"),
    (["+model.widht=3"], "'model.widht'"),
    (["log.evry=3"], "'log.evry'. Did you mean 'log.every'?"),
    (["~seed"], "'seed'"),
    (["~lrr"], "'lrr'"),
    (["=3"], "'=3'"),
    (["lr"], "'lr'"),
    (["lr="], "lr"),
    (["lr=fast"], "lr=fast is not a number"),
    (["lr=0"], "lr=0.0"),
    (["lr=-1"], "lr=-1.0"),
    (["lr=nan"], "lr=nan"),
    (["lr=inf"], "lr=inf"),
    (["seed=1.5"], "seed=1.5 is not a whole number"),
    (["seed=-1"], "seed=-1"),
    (["epochs=0"], "epochs=0"),
    (["epochs=1e3"], "epochs"),
    (["epochs=true"], "epochs"),
    (["max_steps=0"], "max_steps=0"),
    (["batch_size=0"], "batch_size=0"),
    (["batch_size=64", "accumulate=5"], "accumulate=5"),
    (["batch_size=100000"], "batch_size=100000"),
    (["precision=fp8"], "precision=fp8"),
    (["precision=fp16", "device=cpu"], "precision=fp16"),
    (["deterministic=maybe"], "deterministic=maybe"),
    (["device=gpu"], "device=gpu"),
    (["device=cuda:99"], "device=cuda:99"),
    (["ema_decay=1.5"], "ema_decay=1.5"),
    (["keep_last=0"], "keep_last=0"),
    (["log.every=0"], "log.every=0"),
    (["log.level=loud"], "log.level=loud"),
    (["monitor=acc"], "monitor=acc"),
    (["monitor=val/nothing", "monitor_mode=max"], "val/acc"),
    (["monitor_mode=up"], "monitor_mode=up"),
    (["name=../x"], "name=../x"),
    (["name="], "name"),
    (["name=a=b"], "name='a=b'"),
    (["model=resnet81"], "'resnet81'"),
    (["modle=mlp"], "Did you mean 'model'?"),
    (["model=null"], "model"),
    (["model=3"], "'model=3' names no file"),
    (["~model"], "model"),
    (["lr=null"], "lr"),
    (["lr=1,2"], "Add -m"),
    (["name=[a]"], "'name'"),
    (["data={a:1}"], "'data.a'"),
    (["experiment=null"], "'experiment=null' names no file in configs/."),
    (["optimizer.betas=[0.9]"], "optimizer.betas"),
    (["+optimizer.lr=3"], "top level"),
    (["scheduler.warmup_epochs=1e308"], "scheduler.warmup_epochs"),
    (["logger.tensorboard=null"], "logger.tensorboard"),
    (["+logger.tensorboard.flush=1"], "logger.tensorboard.flush_secs"),
    (["model.dropout={_target_: 5}"], "model.dropout"),
    (["model.dropout={_target_: .engine.launch.say, sentence: hello}"], "model.dropout"),
    (["model._target_=torch.classes.foo.bar"], "torch.classes.foo.bar"),
    (["data=synthetic", "data.shape=[3,1000000,1000000]"], "MemoryError"),
    (["device=cpu:7"], "device=cpu:7"),
    (["-m", "model=glob(nope*)"], "no jobs"),
    (["data=nothing"], "digits"),
    (["experiment=nothing"], "'nothing'"),
    (["log=3"], "log"),
    (["lr=${nothing}"], "nothing"),
    (["data=image_folder"], "data.root=VALUE"),
    (["data=image_folder", "data.root=/nowhere/at/all"], "/nowhere/at/all"),
    (["data.shift=far"], "data.shift='far'"),
    (["model.width=-4"], "model"),
    (["model.dropout=7"], "model"),
    (["data=synthetic", "data.size=0"], "data.size=0"),
    (["data=synthetic", "data.shape=[3,8]"], "data.shape"),
    (["model=torchvision"], "model.name=VALUE"),
    (["model=torchvision", "model.name=resnet81"], "resnet18"),
    (["model=torchvision", "model.name=vit_b_16", "+model.image_sizes=3"], "model.image_sizes"),
    (["model._target_=os.system"], "os.system"),
    (["model._target_=torch.os.system"], "torch.os.system"),
    (["model._target_=torch.hub.load"], "torch.hub.load"),
    (["model._target_=torch.load"], "torch.load"),
    (["model=timm"], "model.name=VALUE"),
    (["model=timm", "model.name=convnext_tin"], "Did you mean 'convnext_tiny'?"),
    (["model=timm", "model.name=resnet10t", "+model.drop_rat=0.1"], "drop_rat"),
    (["model=timm", "model.name=resnet10t", "model.weights=x.safetensors"], "x.safetensors must be a file"),
    (["model._target_=.models.cnn.CNM"], "Did you mean 'CNN'?"),
    (["model._target_=.modles.cnn.CNN"], ".modles.cnn.CNN"),
    (["model._target_=torch.optim.SGD"], "torch.optim.SGD"),
    (["optimizer.weight_decay=-1"], "weight_decay"),
    (["scheduler.warmup_steps=3"], "scheduler.warmup_epochs"),
    (["scheduler.interval=day"], "scheduler.interval=day"),
    (["scheduler=multistep", "scheduler.milestones=[9,3]"], "scheduler.milestones"),
    (["resume=runs/nothing"], "runs/nothing"),
    (["-m", "lr=0.1,fast"], "lr=fast is not a number"),
    (["-m", "batch_size=32,0"], "batch_size=0"),
    (["-m", "model=cnn,resnet81"], "'resnet81'"),
    (["-m", "lr=0.1,0.2", "+lrr=3"], "'lrr'"),
]


@pytest.mark.parametrize(("overrides", "named"), MISTAKES, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_a_mistake_is_one_sentence_and_leaves_nothing(train, workspace, overrides, named):
    done = train(*overrides)
    assert done.code == 2, done.out
    lines = [line for line in done.out.splitlines() if line.strip()]
    assert len(lines) == 1, done.out
    assert named in lines[0]
    assert lines[0].endswith((".", "?", '".'))
    assert not (workspace / "runs").exists() or not list((workspace / "runs").glob("*/[!.]*"))


FLAGS = [
    (["--hlep"], "Unknown flag '--hlep'. Did you mean '--help'?"),
    (["lr=0.1", "--dry-run"], "Unknown flag '--dry-run'. Write dry_run=true."),
    (["-lr=0.1"], "Unknown flag '-lr=0.1'. Write lr=0.1."),
    (["--cfg"], "Argument --cfg/-c: expected one argument. See --help and --hydra-help."),
    (["--cfg", "jobs"], "Argument --cfg/-c: invalid choice: 'jobs'"),
    (["-q", "-v"], "-q and -v contradict each other. Give one of them."),
]


@pytest.mark.parametrize(("arguments", "said"), FLAGS, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_a_wrong_flag_is_one_sentence(train, arguments, said):
    done = train(*arguments)
    assert done.code == 2, done.out
    assert done.out.startswith(said)
    assert done.out.count("\n") == 1, done.out


COUNT_IMPORTS = """
import json, runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as end:
    code = end.code
print("\\n" + json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("max_minutes: soon", "max_minutes=soon is not a number."),
        ("lrr: 1", "Unknown config key 'lrr'. Did you mean 'lr'?"),
        ("lr: [", "train.yaml, line "),
    ],
)
def test_a_mistake_in_train_yaml_is_one_sentence(train, workspace, line, named):
    with open(workspace / "configs/train.yaml", "a") as file:
        file.write(f"\n{line}\n")
    done = train()
    assert done.code == 2
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert named in done.out
    assert "composing" not in done.out


def imported(project: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a fresh interpreter and the packages it imported."""
    env = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_IMPORTS, *arguments], cwd=project, env=env, text=True, capture_output=True
    )
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(names)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--help", "optimizer"], 0),
        (["--help", "lrr"], 2),
        (["lrr=1"], 2),
        (["epochs=0"], 2),
        (["data=image_folder"], 2),
        (["resume=runs/nothing"], 2),
        (["-m", "lr=1,x"], 2),
        (["--cfg", "job"], 0),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_answers_before_torch_is_imported(workspace, arguments, code):
    ended, names = imported(workspace, *arguments)
    assert ended == code
    assert not names & {"torch", "torchvision", "numpy", "tensorboard", "sklearn", "PIL"}


@pytest.mark.parametrize("choice", ["model=cnn", "optimizer=sgd", "optimizer._target_=torch.optim.Adam"])
def test_a_run_imports_no_more_than_it_uses(workspace, choice):
    code, names = imported(workspace, choice, "max_steps=1", "logger=none", "log.curves=false")
    assert code == 0
    assert not names & {"torchvision", "tensorboard", "sklearn", "matplotlib", "pandas", "torch._dynamo"}


def test_help_shows_choices_and_keys(train):
    done = train("--help")
    assert done.code == 0
    for text in (
        "resume=auto",
        "data: arrays, cifar10, digits",
        "batch_size=64  ",
        "optimizer.weight_decay=0.05",
        "(one of auto, min, max)",
        "optimizer: adam, adamw, sgd",
    ):
        assert text in done.out


def insert(workspace: Path, line: str) -> None:
    """Add a line to the task's training step."""
    task = workspace / "digits/task.py"
    text = task.read_text()
    assert "images, labels = batch\n" in text
    task.write_text(text.replace("images, labels = batch\n", f"images, labels = batch\n        {line}\n"))


def test_an_error_of_the_users_code_says_where(train, workspace):
    task = workspace / "digits/task.py"
    task.write_text(task.read_text().replace("logits = model(images)", "logits = model(images)[:, :, 0]"))
    done = train()
    assert done.code == 2
    assert "digits/task.py, line" in done.last
    done = train("log.level=debug")
    assert done.code == 1
    assert "Traceback" in done.out
    assert not (workspace / "runs").exists()


def test_a_failure_in_the_run_is_logged_with_its_traceback(train, workspace):
    task = workspace / "digits/task.py"
    task.write_text(
        task.read_text().replace("images, labels = batch", "images, labels = batch\n        ctx.step == 3 and 1 / 0")
    )
    done = train()
    assert done.code == 1
    (folder,) = (workspace / "runs/default").iterdir()
    assert "ZeroDivisionError" in (folder / "train.log").read_text()
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"


def test_a_loss_that_is_not_finite_ends_with_76(train, workspace):
    insert(workspace, "images = images / (ctx.step != 27)")
    done = train("save_every_steps=10", "log.every=50")
    assert done.code == 76, done.out
    assert "not finite at step 28" in done.last
    assert "samples" in done.last
    (folder,) = (workspace / "runs/default").iterdir()
    assert json.loads((folder / "manifest.json").read_text())["status"] == "not finite"
    assert {p.name for p in (folder / "checkpoints").glob("step-*")} == {"step-00000010.pt", "step-00000020.pt"}
    again = train(f"resume={folder}")
    assert again.code == 76
    assert "not finite at step 28" in again.last


def test_no_space_left_ends_with_74(train, workspace):
    limit = "import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (150_000, -1))\n"
    limit += "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script = (workspace / "train.py").read_text()
    (workspace / "train.py").write_text(script.replace("if __name__", f"{limit}\nif __name__"))
    done = train("save_every_steps=10", "model.width=64")
    assert done.code == 74, done.out
    assert "cannot be written: File too large" in done.last
    (folder,) = (workspace / "runs/default").iterdir()
    assert not list((folder / "checkpoints").iterdir())


def test_an_unknown_kind_of_run_folder_is_refused(train, workspace):
    (workspace / "runs").mkdir()
    (workspace / "runs/default").write_text("a file where the folder should be")
    done = train("epochs=1")
    assert done.code == 2
    assert "runs/default" in done.last


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data=mnist", "data.root=nowhere"], "data.root=PATH"),
        (["data=cifar10", "data.root=nowhere"], "data.root=PATH"),
        (["model=resnet18", "model.pretrained=true"], "model.pretrained=false"),
    ],
    ids=["mnist", "cifar10", "pretrained"],
)
def test_what_cannot_be_downloaded(train, workspace, tmp_path, overrides, named):
    nobody = "http://127.0.0.1:9"
    done = train(*overrides, http_proxy=nobody, https_proxy=nobody, TORCH_HOME=str(tmp_path / "hub"))
    assert done.code == 2, done.out
    assert named in done.last
    assert not (workspace / "runs").exists()
    assert not (workspace / "nowhere").exists()


@pytest.mark.parametrize("arguments", ["--help", "--cfg job", "--hydra-help"])
def test_a_reader_that_has_seen_enough(workspace, arguments):
    """As in `python train.py --help | head`."""
    pipe = f"{sys.executable} train.py {arguments} | true"
    done = subprocess.run(pipe, shell=True, cwd=workspace, text=True, capture_output=True)
    assert done.stderr == ""


def test_an_environment_without_the_dependencies(workspace):
    done = subprocess.run([sys.executable, "-S", "train.py"], cwd=workspace, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'hydra' is not installed" in done.stderr
