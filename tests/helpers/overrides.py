"""Overrides of `train.py` drawn at random: values that suit a key, values that suit none, and names of keys."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

GOOD: dict[str, list[Any]] = {
    "name": ["a", "a/b", "'with spaces'", "größe", "v1.2-x_y"],
    "seed": [1, 2**63 - 1],
    "epochs": [1, 3, 1000, 10**5],
    "max_steps": ["null", 1, 7, 10**9],
    "batch_size": [4, 8, 12, 32],
    "accumulate": [1, 2, 4],
    "lr": [1, 0.1, "1e-5", ".5", "1_0.0", "3e+0"],
    "clip_grad_norm": ["null", 1, 0.5, "1e30"],
    "clip_grad_value": ["null", 1, "1e-9"],
    "ema_decay": ["null", 0.5, 0.9999],
    "device": ["auto", "cpu"],
    "precision": ["auto", "fp32", "bf16"],
    "deterministic": ["true", "True", "warn", "false", "'true'"],
    "workers": ["null", 0, 1],
    "monitor": ["val/loss", "val/acc"],
    "monitor_mode": ["auto", "min", "max"],
    "val_every_epochs": [0, 1, 5, 0.25, 1.5],
    "val_every_steps": ["null", 1, 50],
    "val_at_start": ["true", "false"],
    "save_every_epochs": [0, 1, 5],
    "save_every_steps": ["null", 1, 50],
    "keep_last": [1, 10**6, "null"],
    "early_stopping_patience": ["null", 0, 3],
    "max_minutes": ["null", 0.1, 1e9],
    "limit_train_batches": ["null", 1, 2, 0.5, 1.0],
    "limit_val_batches": ["null", 1, 2, 0.01, 1.0],
    "resume": ["null", "auto"],
    "init_from": ["null", "kept/old/checkpoints/best.pt"],
    "init_rename": ["[]", "['^x=>y']", "['a=>b','(.)q=>\\\\1']"],
    "allowed_packages": ["[]", "[numpy]"],
    "log.every": [1, 1000],
    "log.level": ["warning", "error"],
    "find_lr.start": ["1e-8", 0.001],
    "find_lr.stop": [1, 100],
    "find_lr.steps": [20, 1000],
    "experiment": ["label_smoothing"],
}
"""Values of a key that plan a run together with most others; a key that is not here gets its default."""

CHOICES: dict[str, list[tuple[str, dict[str, list[Any]]]]] = {
    "data": [
        ("data=digits", {"data.shift": [0, 3]}),
        (
            "data=synthetic",
            {"data.shape": ["[1,8,8]", "[3,9,12]", "[2,16,5]"], "data.size": [64, 100], "data.classes": [2, 10, 33]},
        ),
        (
            "data=image_folder",
            {
                "data.root": ["pictures", "'pictures'", "./pictures/"],
                "data.size": ["null", 8, "[8,10]"],
                "data.channels": [1, 3],
                "data.val_fraction": [0.5, 0.1],
                "data.flip": ["true"],
                "batch_size": [4],
            },
        ),
    ],
    "model": [
        ("model=cnn", {"model.width": [1, 4, 8], "model.dropout": [0, 0.5, 1]}),
        ("model=mlp", {"model.hidden": ["[]", "[8]", "[16,4]"], "model.dropout": [0, 0.3]}),
        ("model._target_=.models.cnn.CNN", {}),
        ("model=timm", {"model.name": ["resnet10t"], "data": ["synthetic"], "data.shape": ["[2,32,32]"]}),
        ("model=torchvision", {"model.name": ["squeezenet1_1"], "data": ["synthetic"], "data.shape": ["[3,32,32]"]}),
    ],
    "loss": [
        ("loss=cross_entropy", {"loss.label_smoothing": [0.1, 1], "+loss.reduction": ["mean"]}),
        ("loss=terms", {"loss.terms.ce.weight": [0, 2.5], "loss.terms.margin.weight": [-1]}),
    ],
    "mix": [("mix=mixup", {"mix.alpha": [0.2, 1]}), ("mix=cutmix", {"mix.alpha": [1]}), ("mix=none", {})],
    "optimizer": [
        ("optimizer=adamw", {"optimizer.betas": ["[0.8,0.9]"], "optimizer.eps": ["1e-6"]}),
        ("optimizer=adam", {"optimizer.amsgrad": ["true"], "optimizer.maximize": ["true"]}),
        ("optimizer=torch.optim.RMSprop", {"optimizer.momentum": [0.9], "optimizer.centered": ["true"]}),
        ("optimizer=sgd", {"optimizer.momentum": [0.5, 0.9], "optimizer.weight_decay": [0, 0.1]}),
        ("optimizer.no_decay_norm_bias=true", {"optimizer.layer_decay": [0.5, 1]}),
        ("optimizer.groups=[{name: a, match: '*weight'}, {name: b, match: '*', lr_scale: 0.1}]", {}),
        ("optimizer.groups=[{match: '*bias', lr_scale: 0}, {match: ['re:.'], weight_decay: 0}]", {}),
        ("optimizer._target_=torch.optim.NAdam", {"~optimizer.fused": [None]}),
    ],
    "scheduler": [
        ("scheduler=constant", {"scheduler.warmup_steps": [0, 5]}),
        ("scheduler=cosine", {"scheduler.min_scale": [0, 0.5, 1], "scheduler.cycles": [1, 3]}),
        ("scheduler=linear", {"scheduler.warmup_fraction": [0.1, 1], "scheduler.interval": ["epoch"]}),
        ("scheduler=polynomial", {"scheduler.power": [0, 0.9], "scheduler.warmup_epochs": [1, 0.1]}),
        ("scheduler=exponential", {"scheduler.gamma": [0.5, 1], "scheduler.interval": ["step", "epoch"]}),
        ("scheduler=step", {"scheduler.step_size": [1, 100], "scheduler.gamma": [0, 0.1]}),
        ("scheduler=multistep", {"scheduler.milestones": ["[]", "[1]", "[3,9,27]"]}),
        ("scheduler=one_cycle", {"scheduler.pct_start": [0, 0.1, 1], "scheduler.div_factor": [1, 10]}),
        ("scheduler=warmup_stable_decay", {"scheduler.decay_fraction": [0, 0.5, 1]}),
        ("scheduler=plateau", {"scheduler.threshold": [0.1], "scheduler.cooldown": [2]}),
        ("scheduler=.engine.schedule.Cosine", {"scheduler.cycles": [2]}),
        ("scheduler=torch.optim.lr_scheduler.ExponentialLR", {"scheduler.gamma": [0.9]}),
        ("scheduler=plateau", {"scheduler.patience": [0, 3], "scheduler.factor": [0.1]}),
        (
            "scheduler=torch",
            {"scheduler._target_": ["torch.optim.lr_scheduler.CosineAnnealingLR"], "+scheduler.T_max": [5]},
        ),
    ],
    "logger": [("logger=none", {}), ("logger=tensorboard", {})],
}
"""Choices of a group, and what can be set with each; `None` for a key that stands alone."""

ODD: list[str] = [
    *("", "''", '""', "' '", "null", "???", "true", "False", "~", "-", "*", "%", "=", "a=b", "a b", "x" * 3000),
    *("0", "1", "-1", "3", "1.0", "1.5", "-0.0", "1e-320", "1e308", "1e309", "nan", "-inf", "inf"),
    *("1000000000000", "-1000000000000", "9" * 30, "9" * 400, "0x10", "1_000_000_000_000", "1e12", "½"),
    *("[]", "[1]", "[1,2]", "[-1,0]", "[null]", "[[]]", "['a']", "[nan]", "[1e12]", "[1,2,3]", "[3,8,8]"),
    *("{}", "{a: 1}", "{a: {b: [c]}}", "{1: 2}", "[{}]", "[{a: 1}]", "{_target_: os.system}", "{_target_: 3}"),
    *("{_target_: .models.cnn.CNN}", "[{_target_: torch.nn.ReLU}]", "{_partial_: true}"),
    *("${lr}", "${nothing}", "${", "$", "${oc.env:HOME}", "${oc.env:NOT_SET_AT_ALL}", "${now:%Y}", "${model}"),
    *("1,2", "a,b", "range(1,3)", "choice(1,2)", "interval(0,1)", "glob(*)", "shuffle(1,2)", "int(3)", "str(3)"),
    *("(", ")", "[", "]", "{", "}", "'", '"', "\\", "\\'", "'\\'", "\t", "\n", "'\n'", "'a\nb'", "#", "a#b", ":"),
    *("größe", "'größe'", "方块", "'🎲'", "\u202e", "'\ufeff'", "\x1b[31m", "'\x1b[31m'", "\x7f"),
    *("..", "../..", "/", "/dev/null", "/dev/zero", "'~'", "'~nobody_at_all/x'", "runs", "train.py", "configs"),
    *("auto", "cuda", "cuda:0", "cuda:-1", "cuda:x", "mps", "meta", "cpu", "none", "default", "nothing", "'a/../b'"),
    *("val/", "val/nothing", "val/acc", "epoch", "step", "torch", "a=>b", "['[=>x']", "['.*=>x']", "[a, b=>c]"),
    *("kept/old", "kept/empty", "kept/binary", "kept/list", "kept/old/checkpoints", "kept/old/config.yaml"),
    *("kept/old/checkpoints/best.pt", "kept/empty/manifest.json", "pictures", "kept/binary/config.yaml"),
    *("[{match: '*'}]", "[{match: nothing}]", "[{match: 're:['}]", "[{name: a}]", "[{match: '*', lr: 1}]"),
    *("[{match: '*', lr_scale: -1}]", "[{match: '*', lr_scale: nan}]", "[{match: '*', lr_scale: x}]"),
    *("[{match: '*', weight_decay: x}]", "[{match: '*', betas: 3}]", "[{match: '*', nothing: 3}]"),
    *("[{match: '*', lr_scale: 0}]", "[{match: []}]", "[{match: {a: b}}]", "[{name: [1], match: '*'}]"),
    *("[{name: a, match: '*bias'}, {name: a, match: '*'}]", "[{match: '*'}, {match: '*'}]", "[{match: null}]"),
    *("os.system", "torch.os.system", "builtins.eval", "torch.nn.Linear", "torch.nn.Module", "torch.nn", "torch"),
    *("torch.load", "torch.hub.load", "torch.optim.SGD", "torch.optim.Optimizer", "torch.optim.LBFGS", "numpy.load"),
    *(".models.cnn.CNN", ".models.cnn.CNM", ".models.cnn", ".models", ".", "..", ".task.Classification"),
    *(".engine.launch.say", ".engine.api.Data", ".engine.api.Task", ".engine.schedule.Schedule", "subprocess.run"),
    *("torch.optim.lr_scheduler.LambdaLR", "torch.optim.lr_scheduler.ReduceLROnPlateau", ".data.digits.Digits"),
    *("torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler.LRScheduler", "torch.optim.Adagrad"),
    *("torch.nn.MSELoss", "torch.nn.Identity", "torch.utils.data.Dataset", "torchvision.datasets.FakeData"),
]
"""Values that suit few keys, if any."""

NAMES: list[str] = [
    *("learning_rate", "bs", "trainer.gpus", "ckpt_path", "vars", "vars.x", "data.subset", "momentum", "width"),
    *("lrr", "epoch", "Lr", "model.widht", "model.name", "data.nothing", "data.root", "optimizer.lr", "log"),
    *("find_lr", "log.nothing", "a.b.c.d", "", ".", "..", "lr.x", "seed.", ".seed", "model..width", "model.0", "0"),
    *("größe", "a b", "'lr'", "model@task", "model@", "@model", "@", "data/x", "/data", "model/", "data@_global_"),
    *("defaults", "schema", "task.nothing", "task._target_", "loss.terms", "loss.terms.ce", "loss.terms.ce.loss"),
    *("model._target_", "data._target_", "loss._target_", "mix._target_", "optimizer._target_", "task.loss"),
    *("scheduler._target_", "logger.tensorboard._target_", "logger.x", "logger.x._target_", "model._partial_"),
    *("model._args_", "model._recursive_", "model._convert_", "optimizer.params", "optimizer.groups", "mix"),
    *("optimizer.foreach", "optimizer.capturable", "optimizer.maximize", "optimizer.amsgrad", "sweep", "hydra"),
    *("scheduler.horizon", "scheduler.current", "scheduler.validate", "scheduler.T_max", "scheduler.last_epoch"),
    *("data.mean", "data.std", "data.max_size", "data.dataset", "data.splits", "data.val_size", "model.shape"),
    *("model.classes", "model.pretrained", "loss.reduction", "loss.weight", "loss.ignore_index", "loss.size_average"),
    *("task.class_names", "__class__", "model.__class__", "model.self", "task.self", "data.self", "x" * 500),
]
"""Keys besides those of the schema and of the choices."""


def schema(config: ModuleType) -> dict[str, str]:
    """Every key of the schema, and its default as a user types it."""
    keys = {}
    for key, field in config.FIELDS.items():
        if key in config.SECTIONS:
            own = dataclasses.fields(config.SECTIONS[key])
            keys.update({f"{key}.{inner.name}": typed(inner.default) for inner in own})
        elif key not in config.GROUPS:
            default = field.default_factory() if field.default is dataclasses.MISSING else field.default
            keys[key] = typed(default)
    return keys


def typed(value: object) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def keys_of_choices(project: Path) -> list[str]:
    """Every key that a file in configs/ sets, and the groups themselves."""
    keys = {"experiment"}
    for path in project.glob("configs/*/*.yaml"):
        if path.parent.name not in ("experiment", "sweep"):
            keys |= {path.parent.name, *(f"{path.parent.name}.{key}" for key in yaml.safe_load(path.read_text()))}
    return sorted(keys)


def assignment(key: str, value: object) -> str:
    return key if value is None else f"{key}={value}"


@st.composite
def good_ones(draw: Draw, defaults: dict[str, str]) -> list[str]:
    """Overrides that mostly go together: a key of the schema, or a choice and what goes with it."""
    if draw(st.booleans()):
        key = draw(st.sampled_from([key for key in [*defaults, "experiment"] if key not in ("dry_run", "compile")]))
        return [assignment(key, draw(st.sampled_from(GOOD.get(key, [defaults.get(key)]))))]
    choice, values = draw(st.sampled_from(CHOICES[draw(st.sampled_from(list(CHOICES)))]))
    needed = ("data", "data.root", "data.shape", "model.name", "batch_size", "scheduler._target_", "+scheduler.T_max")
    keys = [key for key in values if key in needed or draw(st.booleans())]
    return [choice, *(assignment(key, draw(st.sampled_from(values[key]))) for key in keys)]


@st.composite
def odd_ones(draw: Draw, keys: list[str]) -> list[str]:
    """One override of any key with any value, well-formed or not."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    if draw(st.integers(0, 19)) == 0:
        return [draw(st.one_of(text, st.sampled_from([*keys, *NAMES, *ODD])))]
    key = draw(st.sampled_from(keys)) if draw(st.integers(0, 3)) else draw(st.sampled_from(NAMES))
    prefix = draw(st.sampled_from(["", "", "", "", "", "+", "++", "~"]))
    value = draw(text) if draw(st.integers(0, 9)) == 0 else draw(st.sampled_from(ODD))
    return [f"{prefix}{key}" if prefix == "~" and draw(st.booleans()) else f"{prefix}{key}={value}"]


@st.composite
def overrides(draw: Draw, defaults: dict[str, str], keys: list[str]) -> list[str]:
    """One to six overrides. Half of the draws hold odd ones too."""
    good, odd = good_ones(defaults), odd_ones(keys)
    some = good if draw(st.booleans()) else st.one_of(good, odd, odd)
    found = draw(st.lists(some, min_size=1, max_size=4, unique_by=lambda one: one[0].partition("=")[0]))
    # A flag is another thing, and compiling and a sweep's jobs take long.
    slow = ("compile=true", "compile=True", "compile=reduce-overhead", "experiment=fast", "sweep=optuna")
    flat = [one for ones in found for one in ones]
    return [one for one in flat if not one.startswith("-") and one.lstrip("+") not in slow][:6] or ["seed=1"]
