"""What a `_target_` may name: parts of a run. The engine checks the type of the returned object."""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import snippets
from torch import nn

Build = Callable[..., Any]


@pytest.fixture
def build(engine, monkeypatch) -> Build:
    """Builds a model. A module `digits.own` and a package `others` hold the functions of the snippet."""
    source = snippets.text("functions.py")
    for name in ("digits.own", "others"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        exec(source, vars(module))
        monkeypatch.setitem(sys.modules, name, module)
    target = engine("build.target")

    def build(name: str, allowed: tuple[str, ...] = ("others",), **arguments: Any) -> Any:
        return target.build({"_target_": name, **arguments}, "model", nn.Module, allowed)

    return build


@pytest.mark.parametrize("name", ["plain", "annotated", "promised"])
def test_a_function_of_the_project_needs_no_annotation(build, name):
    assert isinstance(build(f".own.{name}", width=3), nn.Linear)


@pytest.mark.parametrize("name", ["others.annotated", "others.promised", "others.Net", "torch.nn.Identity"])
def test_functions_and_classes_of_an_allowed_package(build, name):
    assert isinstance(build(name, **({} if name.startswith("torch") else {"width": 3})), nn.Module)


def test_functions_of_torchvision_and_timm(build):
    timm = pytest.importorskip("timm")
    net = build("torchvision.models.resnet18", num_classes=7)
    assert net.fc.out_features == 7
    net = build("timm.create_model", ("timm",), model_name="resnet10t", num_classes=7)
    assert isinstance(net, timm.models.ResNet)
    assert net.fc.out_features == 7


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_program_of_torchscript_is_refused(build, engine, monkeypatch):
    """It takes no hooks: the check of the first batch ended with a traceback."""
    script = torch.jit.script
    monkeypatch.setattr(sys.modules["digits.own"], "plain", lambda: script(nn.Linear(3, 2)))
    sys.modules["digits.own"].plain.__module__ = "digits.own"
    with pytest.raises(engine("errors").UserError, match=r"own\.plain returns a program of TorchScript\."):
        build(".own.plain")


def test_what_it_returns_is_looked_at(build, engine):
    for name in (".own.text", ".own.liar", "others.liar"):
        with pytest.raises(
            engine("errors").UserError, match=r"returned an object of (str|int)\. It must return a Module"
        ):
            build(name)


# Each would write or delete a file. `{file}` stands for the path of a file that exists.
HOSTILE = [
    ("torch.save", {"obj": 1, "f": "{file}"}),
    ("torch.load", {"f": "{file}", "weights_only": False}),
    ("torch.hub.load", {"repo_or_dir": "{folder}", "model": "erase", "source": "local", "path": "{file}"}),
    ("torch.fx.graph_module.reduce_graph_module", {"body": {"_code": "{code}"}, "import_block": "{code}"}),
    ("torch.os.remove", {"path": "{file}"}),
    ("torch.serialization.os.remove", {"path": "{file}"}),
    ("os.remove", {"path": "{file}"}),
    ("shutil.rmtree", {"path": "{folder}"}),
    ("others.rmtree", {"path": "{folder}"}),
    ("others.remove", {"path": "{file}"}),
    ("others.reduce_graph_module", {"body": {"_code": "{code}"}, "import_block": "{code}"}),
    ("others.erase", {"path": "{file}"}),
    ("others.told", {"path": "{file}"}),
    ("others.bound", {}),
    (".own.rmtree", {"path": "{folder}"}),
    (".own.reduce_graph_module", {"body": {"_code": "{code}"}, "import_block": "{code}"}),
    (".own.told", {"path": "{file}"}),
    (".engine.paths.write_whole", {"path": "{file}", "text": "x"}),
    ("builtins.eval", {"source": "{code}"}),
    ("others.eval", {"source": "{code}"}),
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("name", "arguments"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_a_dangerous_function_is_never_called(build, engine, tmp_path: Path, name, arguments, nested):
    file = tmp_path / "kept"
    file.write_text("kept")
    (tmp_path / "hubconf.py").write_text("from os import remove as erase\n")
    code = f"import os\nos.remove({str(file)!r})\ndef forward(self): pass\n"

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        texts = {"{file}": str(file), "{folder}": str(tmp_path), "{code}": code}
        return texts.get(value, value)

    section = {"_target_": name, **filled(arguments)}
    section = {"_target_": "others.Holder", "inner": section} if nested else section
    with pytest.raises(engine("errors").UserError):
        build(section.pop("_target_"), **section)
    assert file.read_text() == "kept"


def test_the_refusal_of_a_function_says_what_to_do(build, engine):
    with pytest.raises(engine("errors").UserError) as error:
        build("others.plain", width=3)
    assert str(error.value) == (
        "model._target_=others.plain does not say that it returns a Module. Call it in a function of this project, "
        "and name that function."
    )


def test_a_nested_function_makes_a_part(build):
    holder = build("others.Holder", inner={"_target_": ".own.plain", "width": 3})
    assert isinstance(holder.inner, nn.Linear)
    holder = build("others.Holder", inner={"_target_": "others.annotated", "width": 3})
    assert isinstance(holder.inner, nn.Linear)


def test_own_function_in_a_run(train, workspace):
    """Shape and classes come from the data."""
    (workspace / "digits/models/own.py").write_text(
        "import math\nfrom torch import nn\n\ndef make(shape, classes, width=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.Linear(width, classes))\n"
    )
    (workspace / "configs/model/own.yaml").write_text("_target_: .models.own.make\n")
    done = train("model=own", "max_steps=2", "logger=none")
    assert done.code == 0, done.out
    assert "Sequential" in done.out


def test_notes_of_an_error_are_told_in_one_line(engine):
    error = ValueError("wrong.")
    error.add_note("Do\n  this.")
    assert engine("build.target").describe_error(error) == "ValueError: wrong. Do this."
