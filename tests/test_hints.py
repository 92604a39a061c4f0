"""What people type from habit either works or leads to the sentence that solves it."""

import importlib
import itertools
import re

import pytest
import yaml
from helpers.runs import result, rows, the_run

SHORT = ("max_steps=2", "limit_val_batches=1", "logger=none", "model=mlp")


def refused(engine, *arguments: str) -> str:
    """The message with which a command line is refused before torch is imported."""
    config = engine("config.compose")
    with pytest.raises(engine("errors").UserError) as caught:
        config.compose(*config.read_flags(list(arguments)))
    return str(caught.value)


KEYS = [
    ("learning_rate=0.1", "'lr'"),
    ("LR=0.1", "'lr'"),
    ("training.lr=0.1", "'lr'"),
    ("trainer.max_epochs=3", "'epochs'"),
    ("trainer.accumulate_grad_batches=2", "'accumulate'"),
    ("num_workers=2", "'workers'"),
    ("bs=32", "'batch_size'"),
    ("batch=32", "'batch_size'"),
    ("momentum=0.9", "'optimizer.momentum'"),
    ("weight_decay=0.1", "'optimizer.weight_decay'"),
    ("label_smoothing=0.1", "'loss.label_smoothing'"),
    ("dropout=0.1", "'model.dropout'"),
    ("log_every_n_steps=5", "'log.every'"),
    ("dataset=mnist", "'data'"),
    ("lrr=1", "'lr'"),
    ("epoch=3", "'epochs'"),
]


@pytest.mark.parametrize(("override", "meant"), KEYS, ids=[case[0] for case in KEYS])
def test_another_word_for_a_key(engine, override, meant):
    key = override.partition("=")[0]
    assert refused(engine, override) == f"Unknown config key '{key}'. Did you mean {meant}?"


@pytest.mark.parametrize("key", ["ckpt_path", "checkpoint", "trainer.resume_from_checkpoint"])
def test_a_checkpoint_is_resumed_or_started_from(engine, key):
    said = refused(engine, f"{key}=x.pt")
    assert (
        said
        == f"Unknown config key '{key}'. resume=RUN goes on with a run. init_from=FILE starts a new run from weights."
    )


FLAGS = [
    ("--epochs 2", "Unknown flag '--epochs'. Write epochs=2."),
    ("--lr=0.1", "Unknown flag '--lr=0.1'. Write lr=0.1."),
    ("-lr 0.1", "Unknown flag '-lr'. Write lr=0.1."),
    ("-model mlp", "Unknown flag '-model'. Write model=mlp."),
    ("--model.width 8", "Unknown flag '--model.width'. Write model.width=8."),
    ("--batch-size 4 --epochs 2", "Unknown flag '--batch-size'. Write batch_size=4."),
    ("--num-workers 4", "Unknown flag '--num-workers'. Write workers=4."),
    ("--dry-run", "Unknown flag '--dry-run'. Write dry_run=true."),
    ("--dry-run --epochs 2", "Unknown flag '--dry-run'. Write dry_run=true."),
    ("--resume", "Unknown flag '--resume'. Write resume=VALUE."),
    ("--experiment fast", "Unknown flag '--experiment'. Write experiment=fast."),
    ("epochs 2", "'epochs' is not an override. Write epochs=2."),
    ("lr = 0.1", "'lr' is not an override. Write lr=VALUE."),
]


@pytest.mark.parametrize(("line", "said"), FLAGS, ids=[case[0] for case in FLAGS])
def test_a_flag_is_written_as_an_override(engine, line, said):
    assert refused(engine, *line.split(" ")) == said


@pytest.mark.parametrize("line", ["--gpus 2", "trainer.devices=2", "--config x.yaml", "output_dir=out"])
def test_what_is_said_in_other_ways_here(engine, line):
    said = refused(engine, *line.split(" "))
    assert "torchrun" in said or "experiment=NAME" in said or "name=NAME" in said


@pytest.mark.parametrize(
    "line", ["--cfg job", "--package optimizer", "--info config", "-m lr=1,2", "--config-name train"]
)
def test_the_flags_of_hydra_stay(engine, line):
    assert sorted(engine("config.compose").read_flags(line.split(" "))) == sorted(line.split(" "))


CHOICES = [
    ("model=vit", "There is no model 'vit'. Any model of torchvision: model=torchvision model.name=vit."),
    ("optimizer=rmsprop", "Any optimizer of torch by its class: optimizer=torch.optim.RMSprop."),
    ("optimizer=NAdam", "Any optimizer of torch by its class: optimizer=torch.optim.NAdam."),
    ("optimizer=rprop", "Any optimizer of torch by its class: optimizer=torch.optim.Rprop."),
    ("optimizer=Lion", "If a package has it, write optimizer=PACKAGE.Lion. Any optimizer of torch by its class: "),
    ("loss=FocalLoss", "write loss=PACKAGE.FocalLoss. Any loss of torch by its class: loss=torch.nn.MSELoss."),
    ("loss=huber", "loss=torch.nn.HuberLoss."),
    ("scheduler=cyclic", "scheduler=torch.optim.lr_scheduler.CyclicLR."),
    ("optimizer=SGD", "There is no optimizer 'SGD'. Did you mean 'sgd'?"),
    ("scheduler=CosineAnnealingLR", "Did you mean 'cosine'?"),
    ("scheduler=CosineAnnealingLR", "scheduler=torch.optim.lr_scheduler.CosineAnnealingLR."),
    ("scheduler=ReduceLROnPlateau", "Did you mean 'plateau'?"),
    ("scheduler=OneCycleLR", "Did you mean 'one_cycle'?"),
    ("loss=mse", "loss=torch.nn.MSELoss."),
    ("loss=CrossEntropyLoss", "Did you mean 'cross_entropy'?"),
]


def test_the_beginning_of_a_name(engine):
    """As in model=torchvision model.name=vit, which the message about model=vit recommends."""
    nearest = engine("errors").nearest
    assert nearest("vit", ["resnet18", "vit_l_16_swag", "vit_b_16"]) == " Did you mean 'vit_b_16'?"
    assert nearest("vi", ["resnet18", "vit_b_16"]) == ""


def test_recommended_classes_of_torch_exist(engine):
    for override, part in CHOICES:
        for path in re.findall(r"=(torch[\w.]+)\.", part):
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), override


@pytest.mark.parametrize(("override", "part"), CHOICES, ids=[" ".join(case) for case in CHOICES])
def test_another_choice(engine, override, part):
    said = refused(engine, override)
    assert part in said
    assert " Choices: " in said


def test_the_table_leads_to_what_exists_and_hides_nothing(engine, project):
    hints, schema = engine("config.hints"), engine("config.schema")
    of_files = {
        key
        for group in schema.GROUPS
        for path in (project / "configs" / group).glob("*.yaml")
        for key in yaml.safe_load(path.read_text())
    }
    for word, meant in hints.words("words.yaml").items():
        assert meant in schema.RULES or meant.endswith("."), word
        assert word not in schema.RULES, word
        assert word not in of_files or word in ("config", "dataset", "patience"), word
    table = yaml.safe_load((project / "digits/engine/config/words.yaml").read_text())
    words = list(itertools.chain(*(words.split() for words in table.values())))
    assert len(words) == len(set(words))


# ---------------------------------------------------------------- keys of a group, which its class decides about


def test_arguments_that_no_file_lists_need_no_plus(train, workspace):
    options = ("optimizer.amsgrad=true", "loss.reduction=sum", "model.dropout=0.1")
    done = train(*SHORT, *options)
    assert done.code == 0, done.out
    config = yaml.safe_load((the_run(workspace) / "config.yaml").read_text())
    assert config["optimizer"]["amsgrad"] is True
    assert config["loss"]["reduction"] == "sum"
    plus = train(*SHORT, "name=plus", *(f"++{option}" for option in options))
    assert result(the_run(workspace, "plus")) == result(the_run(workspace)), plus.out


UNKNOWN = [
    ("optimizer.momentum=0.9", "'optimizer.momentum'. It is a key of optimizer=sgd."),
    ("optimizer.amsgrat=true", "'optimizer.amsgrat'. Did you mean 'optimizer.amsgrad'?"),
    ("optimizer.gruops=null", "'optimizer.gruops'. Did you mean 'optimizer.groups'?"),
    ("optimizer.learning_rate=1", "'optimizer.learning_rate'. Did you mean 'lr'?"),
    ("model.depth=3", "'model.depth'. .models.cnn.CNN does not take it."),
    ("model.batch_size=3", "'model.batch_size'. Did you mean 'batch_size'?"),
    ("data.root=x", "'data.root'. It is a key of data="),
    ("loss.nothing=1", "'loss.nothing'. torch.nn.CrossEntropyLoss does not take it."),
    ("scheduler.cycle=2", "'scheduler.cycle'. Did you mean 'scheduler.cycles'?"),
    ("task.nothing=2", "'task.nothing'"),
    ("mix.alpha=1", "mix._target_ is missing. Set mix=NAME"),
    ("logger.tensorboard.flush=1", "Did you mean 'logger.tensorboard.flush_secs'?"),
    (
        "scheduler._target_=torch.optim.lr_scheduler.StepLR",
        ". scheduler=torch.optim.lr_scheduler.StepLR starts without such keys.",
    ),
]


@pytest.mark.parametrize(("override", "said"), UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_what_a_class_does_not_take_is_refused(train, workspace, override, said):
    done = train(override)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert said in done.last
    assert not (workspace / "runs").exists()


def test_a_job_of_a_sweep_takes_them_too(train, workspace):
    done = train("-m", "optimizer.amsgrad=true,false", *SHORT)
    assert done.code == 0, done.out
    assert len(list((workspace / "runs/default").glob("2*/config.yaml"))) == 2


SWEEPS = [
    ("model=cnn,mlp model.width=8", "It is a key of model=cnn."),
    ("optimizer.amsgrat=true,false", "Did you mean 'optimizer.amsgrad'?"),
    ("data.shift=0,far", "data.shift='far'"),
    (
        "scheduler=cosine,torch.optim.lr_scheduler.StepLR scheduler.min_scale=0",
        "configs/scheduler/NAME.yaml with the line _target_: torch.optim.lr_scheduler.StepLR.",
    ),
]


@pytest.mark.parametrize(("line", "said"), SWEEPS, ids=[case[0] for case in SWEEPS])
def test_every_job_of_a_sweep_is_checked_before_the_first(train, workspace, line, said):
    done = train("-m", *line.split(" "), "logger=none", "max_steps=1")
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert said in done.out
    assert done.last.endswith(" No job was started.")
    assert not list((workspace / "runs").glob("*/2*"))


# ---------------------------------------------------------------- none, and a class in place of a choice


@pytest.mark.parametrize(
    ("override", "same"), [("logger=null", "logger=none"), ("scheduler=null", "scheduler=constant")]
)
def test_null_is_the_choice_for_none(engine, override, same):
    compose = engine("launch").compose
    assert compose(override) == compose(same)


CLASSES = [
    ("optimizer=torch.optim.RMSprop", {"optimizer": {"_target_": "torch.optim.RMSprop"}}),
    ("optimizer=torch.optim.RMSprop optimizer.momentum=0.9", {}),
    ("loss=torch.nn.CrossEntropyLoss loss.label_smoothing=0.1", {}),
    (
        "model=.models.cnn.CNN model.width=8 model.dropout=0",
        {"model": {"_target_": ".models.cnn.CNN", "width": 8, "dropout": 0}},
    ),
    ("data=.data.digits.Digits data.shift=0", {}),
    ("task=.task.Classification", {"task": {"_target_": ".task.Classification"}}),
]


@pytest.mark.parametrize(("line", "stored"), CLASSES, ids=[case[0] for case in CLASSES])
def test_a_class_in_place_of_a_choice(train, workspace, line, stored):
    short = SHORT if "model=" not in line else SHORT[:3]
    done = train(*short, *line.split(" "))
    assert done.code == 0, done.out
    config = yaml.safe_load((the_run(workspace) / "config.yaml").read_text())
    assert {group: config[group] for group in stored} == stored
    again = train(*short, *line.split(" "), "resume=auto")
    assert "Nothing is left to do." in again.last, again.out


NOT_THERE = [
    ("optimizer=torch.optim.RMSProp", "does not exist. Did you mean 'RMSprop'?"),
    ("optimizer=torch.optim.sgd", "does not exist. Did you mean 'SGD'?"),
    (
        "optimizer=torch.optim.Lion",
        "If a package has it, write optimizer=PACKAGE.Lion. Any optimizer of torch by its class: ",
    ),
    ("optimizer=torch.optim", "Any optimizer of torch by its class: optimizer=torch.optim.RMSprop."),
    ("optimizer=nowhere.Lion allowed_packages=[nowhere]", "needs the package 'nowhere'. Install it: uv add nowhere"),
    ("scheduler=torch.optim.StepLR", "scheduler=torch.optim.lr_scheduler.StepLR."),
    ("scheduler=torch.optim.lr_scheduler.Cosine", "Did you mean 'CosineAnnealingLR'?"),
    (
        "loss=torch.nn.functional.mse_loss",
        "that a config may name. Any loss of torch by its class: loss=torch.nn.MSELoss.",
    ),
    ("model=torchvision.models.resnet17", "does not exist. Did you mean 'resnet18'?"),
    ("model=.models.cnn", "model._target_=.models.cnn is a file. Name a class in it: .models.cnn.CLASS."),
    ("+optimizer=torch.optim.NAdam", "configs/optimizer/NAME.yaml with the line _target_: torch.optim.NAdam."),
]


@pytest.mark.parametrize(("line", "said"), NOT_THERE, ids=[case[0] for case in NOT_THERE])
def test_a_class_that_is_not_there(train, workspace, line, said):
    done = train(*line.split(" "))
    assert done.code == 2, done.out
    assert said in done.last
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert not (workspace / "runs").exists()


def test_a_class_in_a_config_file(train, workspace):
    own = workspace / "configs/train.yaml"
    own.write_text(own.read_text().replace("- optimizer: adamw", "- optimizer: torch.optim.NAdam"))
    done = train(*SHORT)
    assert done.code == 2, done.out
    said = "configs/optimizer/NAME.yaml with the line _target_: torch.optim.NAdam."
    assert done.last == f"'torch.optim.NAdam' names a class. Here, name a file that you write: {said}"


def test_adam_is_that_of_torch(looped):
    import torch

    loop = looped("optimizer=adam", "lr=0.01", "scheduler=constant", "scheduler.warmup_steps=0", "model=mlp")
    parts = loop.parts
    assert isinstance(parts.optimizer, torch.optim.Adam)
    assert not isinstance(parts.optimizer, torch.optim.AdamW)
    copies = [p.detach().clone().requires_grad_() for p in parts.parameters.values()]
    plain = torch.optim.Adam(copies, lr=0.01, fused=True)
    parts.scheduler.begin(parts.optimizer)
    for _ in range(3):
        for mine, copy in zip(parts.parameters.values(), copies, strict=True):
            mine.grad = torch.randn_like(mine)
            copy.grad = mine.grad.clone()
        parts.optimizer.step()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(parts.parameters.values(), copies, strict=True))


def test_a_run_keeps_its_own_experiment(train, workspace):
    assert train(*SHORT).code == 0
    run = the_run(workspace)
    done = train("experiment=label_smoothing", f"resume={run}")
    assert done.code == 2
    assert "Start a new run, or leave experiment out." in done.last
    done = train("model=cnn", f"resume={run}")
    assert "Start a new run, or leave model out." in done.last
    assert len(rows(run)) > 0


HYDRAS = [
    (("+hydra=1",), "hydra.sweep.dir=PATH"),
    (("hydra=1",), "hydra.sweep.dir=PATH"),
    (("~hydra",), "hydra.sweep.dir=PATH"),
    (("~name=" + 900 * "9",), "~name=VALUE is not possible: it has another value. Set name=VALUE."),
    (("data=synthetic", "--hydra-help"), "--hydra-help takes no overrides"),
    (("scheduler.decay_fraction=${",), "begins an interpolation that does not end"),
    (("--package=x", "--cfg=job"), "package 'x' not found"),
]


@pytest.mark.parametrize(("arguments", "said"), HYDRAS, ids=[" ".join(case[0])[:40] for case in HYDRAS])
def test_what_is_said_of_hydras_own_words_is_true(train, arguments, said):
    done = train(*arguments)
    assert done.code == 2, done.out
    assert said in done.out
    assert "Traceback" not in done.out


def test_config_files_that_are_not_there(train, workspace):
    main = workspace / "configs/train.yaml"
    text = main.read_text(encoding="utf-8")
    main.write_text(text.replace("  - schema\n", "  - schema\n  - nothing\n"), encoding="utf-8")
    done = train(*SHORT)
    assert (done.code, done.last) == (2, "configs/nothing.yaml does not exist. configs/train.yaml names it.")
    main.unlink()
    for line in (SHORT, ("--help",), ("-m", "lr=0.1,0.2")):
        done = train(*line)
        assert done.code == 2
        assert f"{main} does not exist. Restore it, for example with git." in done.out
