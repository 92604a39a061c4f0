"""`python train.py --help KEY` says what a key means. The JSON schema of the config files says it to editors."""

import json
import re
import shlex
from pathlib import Path

import fastjsonschema
import pytest
import yaml
from helpers.template import CONFIGS, ROOT

SCHEMA = json.loads((ROOT / "template/configs/schema.json").read_text(encoding="utf-8"))
FILES = sorted((ROOT / "template").glob("**/configs/**/*.yaml"))


@pytest.fixture
def shown(engine):
    """`shown("lr")`: what `python train.py --help lr` prints."""
    return lambda *words: engine("config.help").text(["--help", *words])


def examples() -> list[str]:
    folder = ROOT / "template/{{ package_name }}/engine/config"
    return (folder / "examples.txt").read_text(encoding="utf-8").splitlines()


def test_a_key_has_type_default_choices_and_an_example(train):
    done = train("--help", "precision")
    assert done.code == 0
    assert done.out.splitlines() == [
        "  precision=auto                    Number format of the model. auto: bf16 on a GPU that has it, else fp32."
        " (one of auto, fp32, tf32, bf16, fp16)",
        "",
        "  type     str",
        "  default  auto",
        "  example  python train.py precision=bf16",
    ]


def test_the_value_here_stands_beside_the_default(shown):
    text = shown("lr", "lr=0.5")
    assert text.startswith("  lr=0.5 ")
    assert "\n  default  0.001\n" in text


def test_each_key_has_an_example_that_works(engine, shown):
    schema, keys = engine("config.schema"), []
    for line in examples():
        overrides = shlex.split(line)
        keys.append(re.sub(r"^\+(vars)\..*", r"\1", overrides[0].partition("=")[0]))
        config = engine("config.compose").compose(*overrides)
        default = schema.Config()
        for part in keys[-1].split("."):
            default, config = getattr(default, part), getattr(config, part)
        assert config != default or line in ("monitor=val/loss", "monitor_mode=min"), line
        assert f"  example  python train.py {line}\n" in shown(keys[-1])
    known = [key for key in schema.RULES if key not in schema.GROUPS]
    assert keys == known


def test_a_folder_shows_its_choices_and_its_keys(shown):
    text = shown("optimizer")
    assert "  optimizer=sgd                     Stochastic gradient descent with momentum." in text
    assert "  optimizer.weight_decay=0.05\n" in text
    assert "  optimizer.layer_decay=null        Each layer's learning rate as a share" in text
    assert "  log.every=50 " in shown("log")
    assert "  experiment=finetune               Start from weights trained on ImageNet." in shown("experiment")


def test_a_key_of_a_group_has_the_comment_of_its_file(shown, project):
    assert "  model.width=32 " in shown("model.width")
    text = shown("data.val_size", "data=mnist")
    assert "held out from the training pictures" in text
    assert "  type     int\n  example  python train.py data.val_size=10000\n" in text
    for words in (["optimizer.groups"], ["data.root", "data=image_folder"]):
        assert len(shown(*words).splitlines()) == 1, "null and ??? are neither a type nor an example"
    assert "seconds until values are on the disk" in shown("logger.tensorboard.flush_secs")


def test_keys_that_the_engine_gives_to_a_group_are_shown(shown):
    text = shown("data")
    assert "  data.shift=1 " in text
    assert "  data.folds=null                   Cross-validation: cut all data but the test split" in text
    assert text.count("data.subset=null") == 1
    assert shown("data.fold").startswith("  data.fold=null                    Number of the part that is held out")
    assert shown("optimizer").count("optimizer.layer_decay=") == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lrr", "The help has no key 'lrr'. Did you mean 'lr'?"),
        ("learning_rate", "The help has no key 'learning_rate'. Did you mean 'lr'?"),
        ("log.evry", "The help has no key 'log.evry'. Did you mean 'log.every'?"),
        ("optimizer.momentum", "The help has no key 'optimizer.momentum'. It is a key of optimizer=sgd."),
        ("../qqq", "The help has no key '../qqq'."),
    ],
)
def test_an_unknown_key_leads_to_the_right_one(train, word, said):
    done = train("--help", word)
    assert (done.code, done.out.strip()) == (2, said)


def test_a_retired_key_says_what_to_do(shown):
    assert shown("log.digits").startswith("log.digits is ignored since release 0.3.0. The console shows 4")


# ---------------------------------------------------------------- the JSON schema


def part(path: Path) -> dict:
    """The schema of a config file, as its line for editors names it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    line = lines[1] if lines[0] == "# @package _global_" else lines[0]  # Hydra reads that line first
    file, _, place = re.fullmatch(r"# yaml-language-server: \$schema=([\w./]+)(#/definitions/(\w+))?", line).groups()
    configs = next(folder for folder in path.parents if folder.name == "configs")
    assert (path.parent / file).resolve() == (configs / "schema.json").resolve()
    return {**SCHEMA["definitions"][place], "definitions": SCHEMA["definitions"]} if place else SCHEMA


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_config_file_fits_the_schema_that_it_names(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    fastjsonschema.compile(part(path))(values or {})


@pytest.fixture(scope="module")
def whole():
    return fastjsonschema.compile(SCHEMA)


@pytest.mark.parametrize(
    "line",
    [
        "lrr: 1",
        "lr: fast",
        "lr: 0",
        "epochs: 0",
        "epochs: 1.5",
        "precision: fp8",
        "log: {evry: 1}",
        "log: {every: 0}",
        "workers: 2000",
        "drop_last: 'no'",
        "optimizer: sgd",
        "tags: 3",
    ],
)
def test_editors_underline_a_mistake(whole, line):
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        whole(yaml.safe_load(line))


@pytest.mark.parametrize(
    "line",
    [
        "lr: ${vars.rate}",
        "max_steps: null",
        "compile: true",
        "deterministic: warn",
        "limit_val_batches: 0.5",
        "log: {digits: 6}",
        "defaults: [schema, {override /data: mnist}]",
        "optimizer: {groups: [{name: a, match: '*'}], mine: 1}",
    ],
)
def test_editors_accept_what_works(whole, line):
    whole(yaml.safe_load(line))


def test_the_schema_knows_every_key_with_its_meaning(engine):
    rules = engine("config.schema").RULES
    for key, rule in rules.items():
        one = SCHEMA
        for name in key.split("."):
            one = one["properties"][name]
        assert one["description"] == rule.meaning, key
    for name, path in CONFIGS.items():
        group, _, _ = name.partition("/")
        if group in SCHEMA["definitions"]:
            keys = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            assert keys.keys() <= SCHEMA["definitions"][group]["properties"].keys(), name


def test_a_project_holds_the_page_of_all_keys(project):
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert (project / "configs/README.md").read_text(encoding="utf-8") == page


def test_several_keys(train):
    done = train("--help", "lr", "epochs")
    assert done.code == 0, done.out
    assert done.out.startswith("  lr=")
    assert "\n\n  epochs=" in done.out


@pytest.mark.parametrize("words", [("data=synthetic", "--help", "data"), ("--help", "data", "data=synthetic")])
def test_help_on_another_choice(train, words):
    done = train(*words)
    assert done.code == 0, done.out
    assert "data.shape=" in done.out
    assert "given twice" not in done.out
