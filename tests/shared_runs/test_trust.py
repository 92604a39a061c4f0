"""A run folder from somebody else is data: none of its code runs, no link in it is followed."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.runs import the_run

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=2", "logger=none", "log.curves=false", "workers=0")


def edit_config(run: Path, **values: object) -> None:
    """Set keys of a stored config; "model._target_" and the like by their dotted name."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for name, value in values.items():
        *sections, key = name.split("__")
        place = config
        for section in sections:
            place = place[section]
        place[key] = value
    path.write_text(yaml.safe_dump(config))


NET = """
import pathlib
from torch import nn

pathlib.Path(__file__).with_name("ran").touch()


class Net(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
"""


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "reproduce", "resume"])
def test_no_module_of_a_run_folder_is_imported(verb, server, shared, command):
    name = "stopped" if command == "resume" else "default"
    run = the_run(shared, name).rename(shared / "runs" / name / "a")
    (run / "net.py").write_text(NET)
    edit_config(run, allowed_packages=["runs"])
    text = (run / "config.yaml").read_text().replace(".engine.models.mlp.MLP", f"runs.{name}.a.net.Net")
    assert "net.Net" in text
    (run / "config.yaml").write_text(text)
    if command == "resume":
        done = server.run(shared / "train.py", f"resume={run}", "allowed_packages=[runs]")
    else:
        files = [run / "net.py"] if command == "predict" else []
        done = verb(command, run, *files, "--allow", "runs")
    assert done.code == 2, done.out
    assert "net.Net" in done.out
    assert "Traceback" not in done.out
    assert not (run / "ran").exists()


def test_a_stored_config_does_not_extend_the_packages_to_trust(verb, shared):
    run = the_run(shared)
    edit_config(run, allowed_packages=["numpy"], model={"_target_": "numpy.ndarray"})
    done = verb("evaluate", run)
    assert done.code == 2
    assert "numpy.ndarray is not in one of the packages" in done.out, done.out


def test_a_package_is_trusted_by_the_project_or_by_the_command(server, verb, shared):
    """The package is on the path of the project, and no part of it."""
    (shared / "others.py").write_text("from digits.engine.models.mlp import MLP\n\n\nclass Own(MLP):\n    pass\n")
    (shared / "configs/model/own.yaml").write_text("_target_: others.Own\nhidden: [8]\n")
    options = ("name=own", *QUICK[2:], "model=own")
    assert "allowed_packages" in server.run(shared / "train.py", *options).out
    assert server.run(shared / "train.py", *options, "allowed_packages=[others]").code == 0
    run = the_run(shared, "own")
    assert verb("evaluate", run).code == 2
    assert verb("evaluate", run, "--allow", "others").code == 0
    assert verb("reproduce", run, "--allow", "others").code == 0
    (shared / "configs/experiment/own.yaml").write_text("# @package _global_\nallowed_packages: [others]\n")
    assert verb("evaluate", run).code == 0


HOSTILE = {
    "a class of the engine that writes a file": {"_target_": ".engine.run.saver.Saver", "folder": "x"},
    "a function of the engine that writes a file": {"_target_": ".engine.paths.write_whole", "path": "x", "text": "x"},
    "a function of the engine that deletes files": {"_target_": ".engine.paths.delete_temporary_files", "folder": "."},
    "the engine's lock": {"_target_": ".engine.run.folder.lock_run", "folder": "."},
    "the commands of the project": {"_target_": ".__main__.main", "arguments": ["evaluate", "."]},
    "a class of the commands": {"_target_": ".__main__._Parser"},
    "a module of torch that is another one": {"_target_": "torch.os.system", "command": "touch ran"},
    "a function of torch that loads": {"_target_": "torch.load", "f": "x.pt", "weights_only": False},
    "a function of torch that writes": {"_target_": "torch.save", "obj": 1, "f": "ran"},
    "code from the internet": {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"},
    "a downloaded file": {"_target_": "torch.hub.download_url_to_file", "url": "file:///x", "dst": "ran"},
    "a started process": {"_target_": "torch.multiprocessing.Process"},
    "a compiler": {"_target_": "torch.utils.cpp_extension.load_inline", "name": "x", "cpp_sources": ""},
    "a writer of event files": {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "ran"},
    "a reader of pickles": {"_target_": "torch.jit.load", "f": "x"},
    "a built-in function": {"_target_": "builtins.exec", "object": "1"},
    "a program": {"_target_": "subprocess.Popen", "args": ["touch", "ran"]},
    "a class that opens files": {"_target_": "pathlib.Path", "args": "x"},
    "another name of the package": {"_target_": "digits.engine.errors.os.remove", "path": "x"},
    "a name of a dunder": {"_target_": ".engine.paths.__loader__.set_data", "path": "ran", "data": ""},
    "no name": {"_target_": 3},
    "an empty name": {"_target_": ""},
    "dots": {"_target_": "..."},
    "a relative path": {"_target_": "../runs/net.Net"},
}


@pytest.mark.parametrize("section", HOSTILE.values(), ids=HOSTILE)
def test_a_section_builds_nothing_but_parts_of_a_run(engine, monkeypatch, tmp_path, section):
    """As a section of its own, and inside the section of a class that takes anything."""
    from torch import nn

    target, errors = engine("build.target"), engine("errors")
    monkeypatch.chdir(tmp_path)
    for whole in (section, {"_target_": "torch.nn.Identity", "inner": section}):
        with pytest.raises(errors.UserError):
            target.build(whole, "model", nn.Module, ["digits"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a class of the engine that writes a file", "the commands of the project", "a program"]
)
def test_a_stored_config_calls_nothing_but_parts_of_a_run(verb, shared, name):
    run = the_run(shared)
    (shared / "digits/anything.py").write_text(ANYTHING)
    edit_config(run, model={"_target_": ".anything.Anything", "inner": HOSTILE[name]})
    before = {path for path in shared.rglob("*") if "__pycache__" not in path.parts}
    done = verb("evaluate", run)
    assert done.code == 2, done.out
    assert "Traceback" not in done.out
    assert {path for path in shared.rglob("*") if "__pycache__" not in path.parts} == before


ANYTHING = """
from torch import nn


class Anything(nn.Module):
    def __init__(self, inner):
        super().__init__()
"""


@pytest.mark.parametrize("call", ["${oc.env:HOME}", "${ oc.env:HOME,x }", "${oc.decode:1}", "${oc.create:{}}"])
def test_a_stored_config_computes_nothing(verb, shared, call):
    run = the_run(shared)
    edit_config(run, name=call)
    done = verb("evaluate", run)
    assert done.code == 2
    assert "plain values only" in done.out
    assert str(Path.home()) not in done.out.replace(str(shared), "")


def test_few_lines_cannot_fill_the_memory(verb, server, shared):
    """Ten lines of YAML stand for a list of 10^9 numbers."""
    run = the_run(shared, "stopped")
    lines = ["vars:", "  x0: &a0 [1]", *(f"  x{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]" for i in range(1, 10))]
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("vars: {}\n", "\n".join([*lines, ""])))
    assert "&a9" in path.read_text()
    for done in (verb("evaluate", run), verb("compare", run), server.run(shared / "train.py", f"resume={run}")):
        assert done.code == 2, done.out
        assert "repeats '&a" in done.out
    done = server.run(shared / "train.py", *QUICK, "name=stopped", "resume=auto")
    assert done.code == 0, done.out
    assert "differs in config.yaml, which cannot be read" in done.out


# ---------------------------------------------------------------- links


LINKED = ["train.log", "metrics.jsonl", "config.yaml", "manifest.json", ".lock", "checkpoints", "evaluate-val.json"]


@pytest.mark.parametrize("name", LINKED)
def test_no_link_in_a_run_folder_is_followed(verb, server, shared, tmp_path, name):
    run, outside = the_run(shared, "stopped"), tmp_path / "outside"
    if name == "checkpoints":
        shutil.move(run / name, outside)
    else:
        outside.write_text((run / name).read_text() if (run / name).exists() else "")
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    before = outside.stat().st_mtime_ns
    for done in (verb("evaluate", run), verb("compare", run), server.run(shared / "train.py", f"resume={run}")):
        assert done.code == 2, done.out
        assert f"{name} is a link out of the run folder" in done.out
        assert "Traceback" not in done.out
    assert outside.stat().st_mtime_ns == before


def test_a_link_within_the_run_folder_stays(verb, shared):
    """Weights & Biases makes one."""
    run = the_run(shared)
    (run / "latest").symlink_to("checkpoints")
    assert verb("compare", run).code == 0


def test_temporary_files_cannot_be_guessed(engine, tmp_path):
    paths = engine("paths")
    target = tmp_path / "file.json"
    names = set()
    for _ in range(100):
        with paths.replacing(tmp_path / "other.json") as path:
            path.touch()
            names.add(path.name)
    assert len(names) == 100
    for guess in (".file.json.tmp", "file.json.tmp"):
        (tmp_path / guess).symlink_to(tmp_path / "outside")
    (tmp_path / "old").write_text("old")
    target.symlink_to(tmp_path / "old")
    paths.write_whole(target, "new")
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "outside").exists()


# ---------------------------------------------------------------- what is shown


EVIL = "\x1b]0;evil\x07\x1b[31m"


def test_escapes_are_shown_and_not_obeyed(verb, shared):
    run = the_run(shared)
    edit_config(run, seed=3, model__hidden=[8], name=f"a{EVIL}")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": f"finished{EVIL}"}))
    done = verb("compare", run, the_run(shared, "stopped"))
    assert "\x1b" not in done.out
    assert "\\x1b]0;evil" in done.out


def test_a_run_name_holds_no_control_character(engine):
    is_run_name = engine("config.schema").is_run_name
    assert is_run_name("ünïcode 名 a/b")
    assert not is_run_name(f"a{EVIL}")
    assert not is_run_name("a\u202eb")  # text that runs from right to left


def test_a_spreadsheet_runs_no_cell(engine):
    predict, file = engine("tools.predict"), io.StringIO()
    cells = ["=1+1", "+1", "-1", "@x", "\t=1"]
    predict.write_csv([{"path": "a.png", "label": cell, "p": -0.5} for cell in cells], file)
    found = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert [row["label"] for row in found] == [f"'{cell}" for cell in cells]
    assert {row["p"] for row in found} == {"-0.5"}
    file = io.StringIO()
    predict.write_csv([{"label": "a\r=1"}], file)
    assert file.getvalue() == "label\na\\r=1\n"


# ---------------------------------------------------------------- secrets


SECRETS = {
    'API_KEY = "Zm9vYmFyYmF6"': "Zm9vYmFyYmF6",
    "  'password': 'hunter2!'": "hunter2!",
    "WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567": "0123456789abcdef",
    "token: ghp_abcdefghijklmnopqrstuvwxyz0123456789": "ghp_abc",
    "url = https://me:tops3cret@example.org/x": "tops3cret",
    "AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "x = 'hf_abcdefghijklmnopqrstuvwxyzABCDEFGH'": "hf_abc",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----": "MIIE",
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_left_out(engine, text):
    facts = engine("run.facts")
    told = facts.without_secrets({"git": {"diff": f"+ a\n+{text}\n"}, "command": [text], "n": 1})
    assert SECRETS[text] not in str(told)
    assert str(told).count(facts.LEFT_OUT) == 2
    assert told["n"] == 1
    assert told["git"]["diff"].startswith("+ a\n")


@pytest.mark.parametrize(
    "text",
    ["tokens = tokenizer.encode(text)", "max_tokens=100000", "token: Tensor", "n_tokens = batch.tokens[1:2048]",
     "secret_sauce = compute_the_secret_sauce(x)", "https://example.org:8080/a@b", "password = getpass()"],
)  # fmt: skip
def test_usual_code_stays(engine, text):
    assert engine("run.facts").without_secrets(text) == text


def test_a_manifest_says_that_it_leaves_out_secrets(train, workspace):
    done = train(*QUICK, "name=secret", "+data.token_=1", "log.level=info")
    assert done.code == 2  # no such key: the run does not begin
    done = train(*QUICK, "name='sk-abcdefghijklmnopqrstuv0123'")
    assert done.code == 0, done.out
    assert "leaves out 2 texts that look like passwords or keys" in done.out
    manifest = (the_run(workspace, "sk-abcdefghijklmnopqrstuv0123") / "manifest.json").read_text()
    assert "sk-abc" not in manifest
