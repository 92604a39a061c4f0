"""Owners' files and runs of every release work with the newest engine, as after an update.

The first release is tried with every starting point, the others with the default one.
"""

import ast
import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml
from helpers.releases import NEWEST, files, versions
from helpers.runs import logged, result, the_run
from helpers.template import POINTS, ROOT
from helpers.updating import Versions
from packaging.version import Version

from ostinato.changelog import between
from ostinato.render import ownership

DEFAULT = "image_classification"
OF_RELEASES = [point for point in POINTS if point != "tabular"]  # 0.1.0 lacks it
SCAFFOLDS = [(v, p) for v in versions() for p in OF_RELEASES if v == versions()[0] or p == DEFAULT]
SHORT = ("max_steps=6", "limit_val_batches=1", "log.every=2", "logger=none", "device=cpu", "workers=0")
STOPPING = """
import os, signal
from .task import Classification

class Stopping(Classification):
    def training_step(self, model, batch, ctx):
        if os.environ.get("AT") == str(ctx.step):
            os.environ["AT"] = ""
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(model, batch, ctx)
"""


def answers_for(point: str) -> dict[str, object]:
    """The answers of a project that a release rendered, whose answers file does not say `lean`."""
    answers = {"package_name": "digits", "starting_point": point}
    return {**answers, "rendered_as": answers}


@pytest.fixture(scope="module")
def rendered(all_versions: Versions) -> Versions:
    return all_versions


@pytest.fixture
def projects(rendered: Versions, template: Path, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """`projects(version, point)`: the project as that version rendered it, and with the newest template's files."""

    def projects(version: str, point: str) -> tuple[Path, Path]:
        answers = answers_for(point)
        old = shutil.copytree(rendered.get(version, answers)[0], tmp_path / "old")
        new = shutil.copytree(rendered.get(NEWEST, answers)[0], tmp_path / "new")
        owned = ownership(template, answers)
        for path in files(new):
            if owned(path):
                (new / path).unlink()
        for path, content in files(old).items():
            if owned(path):
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                (new / path).write_bytes(content)
        return old, new

    return projects


def numbers_change(version: str) -> bool:
    """Whether the changelog says so for a release after `version`."""
    return between((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), Version(version)).numbers


@pytest.mark.parametrize(("version", "point"), SCAFFOLDS)
def test_it_trains_to_the_same_weights_and_its_own_tests_pass(projects, server, version: str, point: str):
    old, new = projects(version, point)
    for project in (old, new):
        done = server.run(project / "train.py", *SHORT)
        assert done.code == 0, done.out
    if not numbers_change(version):
        before, after = the_run(old), the_run(new)
        assert result(before)["weights_sha256"] == result(after)["weights_sha256"]
        shared = zip(logged(before), logged(after), strict=True)
        assert all(first.items() <= second.items() for first, second in shared)
    done = server.run_tests(new, "--ignore=tests/engine")
    assert done.code == 0, done.out
    assert " passed" in done.last, done.out


def defined(path: Path) -> set[str]:
    """The names at a module's top level."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {ast.unparse(target) for target in targets}
    return found


@pytest.mark.parametrize(("version", "point"), [(v, p) for v in versions() for p in OF_RELEASES])
def test_every_name_that_its_files_import_is_still_there(rendered: Versions, version: str, point: str):
    answers = answers_for(point)
    old, owned = rendered.get(version, answers)
    engine = rendered.get(NEWEST, answers)[0] / "digits/engine"
    wanted = set()
    for path in filter(owned, files(old)):
        if path.endswith(".py"):
            for node in ast.walk(ast.parse((old / path).read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and re.search(r"(^|\.)engine(\.|$)", node.module or ""):
                    module = re.sub(r"^.*?engine\.?", "", node.module)
                    wanted |= {(module, alias.name) for alias in node.names}
    assert ("api", "Task") in wanted
    for module, name in wanted:
        if not module:
            assert (engine / f"{name}.py").exists(), name
            continue
        assert name in defined(engine / f"{module.replace('.', '/')}.py"), f"engine.{module}.{name}"


@pytest.mark.parametrize("version", versions())
def test_a_run_of_the_old_engine_goes_on_with_the_new(projects, server, version: str):
    old, new = projects(version, DEFAULT)
    options = (*SHORT, "task._target_=.stopping.Stopping")
    for project in (old, new):
        (project / "digits/stopping.py").write_text(STOPPING)
    assert server.run(old / "train.py", *options, "name=whole").code == 0
    stopped = server.run(old / "train.py", *options, AT="3")
    assert stopped.code == 75, stopped.out
    shutil.copytree(old / "runs", new / "runs")
    done = server.run(new / "train.py", f"resume={the_run(new)}")
    if done.code == 2:  # then it says why, and leaves the run as it was
        assert "Traceback" not in done.out
        assert len(done.out.strip().splitlines()) == 1
        assert files(the_run(new)) == files(the_run(old))
        return
    assert done.code == 0, done.out
    if not numbers_change(version):
        assert result(the_run(new))["weights_sha256"] == result(the_run(new, "whole"))["weights_sha256"]
        assert "no longer bit-exact" not in done.out
    done = server.run(new / "train.py", f"init_from={the_run(new)}/checkpoints/best.pt", "dry_run=true")
    assert done.code == 0, done.out


# ---------------------------------------------------------------- stored targets

SPELLED = [(version, point) for version in versions() for point in OF_RELEASES]


def targets(value: object) -> Iterator[str]:
    """Every `_target_` of a config, in the order of its keys."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key == "_target_" else targets(inner)
    elif isinstance(value, list):
        yield from (target for inner in value for target in targets(inner))


def choices(project: Path) -> dict[str, dict]:
    """The config files that an update renews, by "group/name"; a target of an owner's own is left out."""
    paths = (path for path in sorted((project / "configs").glob("*/*.yaml")) if path.parent.name != "experiment")
    return {f"{path.parent.name}/{path.stem}": yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


@pytest.mark.parametrize(("version", "point"), SPELLED)
def test_every_choice_spells_its_target_as_it_did(rendered: Versions, version: str, point: str):
    """A stored `_target_` is part of a run's identity. Under another spelling, `resume=auto` would start a new run."""
    old, new = (choices(rendered.get(name, answers_for(point))[0]) for name in (version, NEWEST))
    was = {name: list(targets(config)) for name, config in old.items() if name in new}
    assert was == {name: list(targets(new[name])) for name in was}
    assert sum(map(len, was.values())) > 10


@pytest.mark.parametrize(("version", "point"), SPELLED)
def test_every_target_of_a_release_takes_what_its_config_gives(rendered: Versions, engine, version: str, point: str):
    """This holds for choices too that new projects of this starting point do not have."""
    locate, tried = engine("build.target").locate, 0
    old = rendered.get(version, answers_for(point))[0]
    for name, config in choices(old).items():
        for section in (config, *(inner for inner in (config or {}).values() if isinstance(inner, dict))):
            target = (section or {}).get("_target_", "???")
            if target.startswith((".engine.", "torch")):
                taken = inspect.signature(locate(target, name)).parameters.keys() | {"_target_"}
                if target.startswith(".engine."):
                    assert section.keys() <= taken, f"{name}: {section.keys() - taken}"
                tried += 1
    assert tried > 10


TINY = ("data=synthetic", "data.size=32", "data.shape=[1,8,8]")
MLP = ("model=mlp", "model.hidden=[4]")
TINY_PICTURES = ("data=synthetic", "data.size=8", "data.shape=[3,32,32]", "batch_size=2", "optimizer=sgd")
BESIDE = {
    "model/cnn": ("model.width=4",),
    "model/mlp": MLP,
    "model/resnet18": TINY_PICTURES,
    "model/torchvision": (*TINY_PICTURES, "model.name=mobilenet_v3_small"),
    "model/timm": (*TINY_PICTURES, "model.name=resnet10t"),
    "scheduler/multistep": ("scheduler.milestones=[1]", "scheduler.interval=epoch"),
    "scheduler/torch": ("scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "+scheduler.T_max=3"),
    "scheduler/plateau": ("scheduler.patience=0",),
}
SLOW = {"model/resnet50", "model/convnext_tiny"}
"""Targets that other choices have, too."""


@pytest.mark.parametrize("version", versions())
def test_resume_auto_goes_on_with_a_run_of_every_choice(projects, server, version: str):
    """The old engine trains one run, and begins a second. The new engine finishes it, and both are equal.

    A run has a choice of each group, so that there are as many runs as schedules.
    """
    old, new = projects(version, DEFAULT)
    short = ("batch_size=4", "max_steps=4", "epochs=2", "limit_train_batches=2", *SHORT[1:])
    groups = ("scheduler", "optimizer", "loss", "model", "mix")
    names = [name for name in choices(old) if name not in SLOW]
    tried = [[name for name in names if name.split("/")[0] == group] for group in groups]
    assert sum(map(len, tried)) > 15
    tried[-1] = [None, None, *tried[-1]]  # loss=terms, the second loss, takes no mixed labels
    for together in zip_longest(*tried):
        chosen = [name for name in together if name is not None]
        model = MLP if not any(name.startswith("model/") for name in chosen) else ()
        overrides = [*short, *TINY, *model, *(o for name in chosen for o in BESIDE.get(name, ()))]
        overrides += [name.replace("/", "=") for name in chosen]
        options = {override.split("=")[0]: override for override in overrides}.values()
        label = "-".join(name.split("/")[1] for name in chosen)
        done = server.run(old / "train.py", *options, f"name=whole-{label}")
        assert done.code == 0, (chosen, done.out)
        done = server.run(old / "train.py", *options, f"name={label}", "max_minutes=1e-9")
        assert done.code == 75, (chosen, done.out)
        shutil.copytree(old / "runs" / label, new / "runs" / label)
        done = server.run(new / "train.py", *options, f"name={label}", "resume=auto")
        assert done.code == 0, (chosen, done.out)
        after = result(the_run(new, label))  # one folder: it began no new run
        assert after["steps"] == 4
        if not numbers_change(version):
            assert after["weights_sha256"] == result(the_run(old, f"whole-{label}"))["weights_sha256"], chosen


@pytest.mark.parametrize("version", [version for version in versions() if Version(version) < Version("0.3.0")])
def test_a_retired_key_of_its_runs_and_files_is_ignored(projects, server, version: str):
    old, new = projects(version, DEFAULT)
    for project in (old, new):
        (project / "digits/stopping.py").write_text(STOPPING)
        with open(project / "configs/train.yaml", "a", encoding="utf-8") as file:
            file.write("\nlog:\n  digits: 6\n")
    options = (*SHORT, "task._target_=.stopping.Stopping")
    assert server.run(old / "train.py", *options, "name=whole").code == 0
    assert server.run(old / "train.py", *options, AT="3").code == 75
    assert "  digits: 6" in (the_run(old) / "config.yaml").read_text(encoding="utf-8")
    shutil.copytree(old / "runs", new / "runs")
    done = server.run(new / "train.py", *options, "resume=auto")
    assert done.code == 0, done.out
    assert done.out.count("The config key 'log.digits' is ignored") == 1, done.out
    assert "from step 4" in done.out  # `the_run` finds no second one either
    if not numbers_change(version):
        assert result(the_run(new))["weights_sha256"] == result(the_run(new, "whole"))["weights_sha256"]


@pytest.mark.parametrize("version", versions())
def test_new_keys_and_choices_work_in_it(projects, server, version: str):
    old, new = projects(version, DEFAULT)

    def names(project: Path) -> set[str]:
        """As group=choice; some need a download, an account or an argument of their own."""
        return {
            name.replace("/", "=") for name in choices(project) if name.split("/")[0] not in {"data", "logger", "sweep"}
        }

    def keys(project: Path) -> dict[str, str]:
        """Top-level keys of the config with their defaults."""
        schema = project / "digits/engine/config/schema.py"
        schema = schema if schema.exists() else project / "digits/engine/config.py"  # until 0.2.0
        tree = ast.parse(schema.read_text(encoding="utf-8"))
        (config,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
        fields = (node for node in config.body if isinstance(node, ast.AnnAssign))
        defaults = {
            f.target: f.value.args[0] if isinstance(f.value, ast.Call) and f.value.args else f.value for f in fields
        }
        return {ast.unparse(k): ast.unparse(v) for k, v in defaults.items() if isinstance(v, ast.Constant)}

    shown = {"True": "true", "False": "false", "None": "null"}
    added = {key: value for key, value in keys(new).items() if key not in keys(old)}
    overrides = [f"{key}={'true' if value == 'False' else shown.get(value, value)}" for key, value in added.items()]
    done = server.run(new / "train.py", *SHORT, *overrides, "ema_decay=0.9")  # which `ema_warmup` needs
    assert done.code == 0, done.out
    config = (the_run(new) / "config.yaml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{key}: ", config, re.MULTILINE) for key in added)
    arguments = {"model=timm": ("model.name=resnet10t",)}  # which have no default
    for choice in sorted(names(new) - names(old)):
        done = server.run(new / "train.py", *SHORT, choice, *arguments.get(choice, ()), "dry_run=true")
        assert done.code == 0, (choice, done.out)
