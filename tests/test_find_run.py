"""`resume=auto` finds the newest equal run, says which, and stays quick among many runs."""

import dataclasses
import json
import os
import shlex
import shutil
from datetime import UTC, datetime, timedelta, timezone

import pytest
import torch
import yaml
from helpers.runs import the_run

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=2", "logger=none", "log.curves=false", "workers=0")


def started(run, when: datetime) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": when.isoformat()}))


def test_the_newest_run_is_found_by_the_instant_of_its_start(train, workspace):
    """A local time of another zone sorts wrongly as a text."""
    assert train(*QUICK).code == 0
    first = the_run(workspace)
    second = shutil.copytree(first, first.with_name("second"))
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    started(first, noon.astimezone(timezone(timedelta(hours=9))))
    started(second, (noon + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-8))))
    done = train(*QUICK, "resume=auto")
    assert done.code == 0
    assert "resume=auto goes on with runs/default/second." in done.out


def test_auto_goes_on_where_the_data_have_moved(train, workspace, pictures, tmp_path):
    """As on a cluster, which gives each job another scratch disk."""
    options = (*QUICK[:2], *QUICK[3:], "data=image_folder", "data.size=8", "data.val_fraction=0.2", "batch_size=8")
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    pictures.rename(first)
    assert train(*options, "max_steps=2", f"data.root={first}").code == 0
    first.rename(second)
    done = train(*options, "max_steps=3", f"data.root={second}", "resume=auto")
    assert (done.code, "resume=auto goes on with" in done.out) == (0, True), done.out
    shutil.copytree(second, third)
    done = train(*options, "max_steps=4", f"data.root={third}", "resume=auto")
    assert (done.code, "differs in data. A new run begins" in done.out) == (0, True), done.out


def test_auto_says_what_the_nearest_run_differs_in(train, workspace):
    assert train(*QUICK).code == 0
    run = the_run(workspace)
    done = train(*QUICK, "resume=auto", "lr=0.5", "model.hidden=[9]", "max_steps=1")
    assert done.code == 0
    said = f"No run of 'default' has this config. The nearest, runs/default/{run.name}, differs in"
    assert f"{said} lr, max_steps, model." in done.out, done.out
    done = train(*QUICK, "name=other", "resume=auto")
    assert "No run of" not in done.out
    done = train(*QUICK, "name=other", "resume=runs/default")
    assert (done.code, "such as runs/default/" in done.last) == (2, True), done.out


@pytest.mark.parametrize("name", ["plain", "my run", "größe", "it's", "a,b"])
def test_the_command_that_resumes_can_be_typed(engine, name):
    """The shell and Hydra read the path as it is."""
    folder = engine("paths").RUNS / name / "2026-11-29_09-45-12"
    hint = engine("run.folder").Run(folder, None).resume_hint
    *_, word = shlex.split(hint.removeprefix("Go on with: "))
    assert engine("config.compose").compose(word).resume == f"runs/{name}/{folder.name}"
    assert ('"' in hint) is (name != "plain")


def test_a_shorter_run_is_another_one(train, workspace):
    assert train(*QUICK).code == 0
    done = train(*QUICK, "resume=auto", "max_steps=1")
    assert "differs in max_steps" in done.out


def test_nan_in_a_config_equals_itself(engine):
    changed, compose = engine("config.stored").changed_keys, engine("launch").compose
    pair = [dataclasses.replace(compose(), data={"_target_": "x", "scale": [float(text)]}) for text in ("nan", "nan")]
    assert changed(*pair) == set()
    assert changed(pair[0], dataclasses.replace(pair[1], lr=2.0)) == {"lr"}


@pytest.mark.parametrize("text", ["lr: 3e-3 # mine", "lr:   0.003", "lr: 0.30e-2"])
def test_another_spelling_of_a_value_is_the_same_value(train, workspace, text):
    assert train(*QUICK).code == 0
    path = the_run(workspace) / "config.yaml"
    before = path.read_text()
    path.write_text(before.replace("lr: 0.003", text))
    assert path.read_text() != before
    assert "goes on with" in train(*QUICK, "resume=auto").out


def test_only_equal_runs_need_their_manifest(engine, tmp_path, monkeypatch):
    find, launch, folder = map(engine, ("run.find", "launch", "run.folder"))
    monkeypatch.setattr(find, "RUNS", tmp_path)
    for seed in range(50):
        config = launch.compose(f"seed={seed}")
        run = tmp_path / "default" / str(seed)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(engine("config.stored").to_yaml(config))
        (run / "manifest.json").write_text('{"started": "2026-11-01T12:00:00+00:00"}')
    read = []
    monkeypatch.setattr(folder.Run, "manifest", lambda self, real=folder.Run.manifest: read.append(self) or real(self))
    found = find.find_run(launch.compose("seed=7", "resume=auto"))
    assert found == tmp_path / "default/7"
    assert len(read) == 1


def test_the_order_of_keys_in_a_stored_config_does_not_matter(train, workspace):
    """An editor or a program may sort them."""
    assert train(*QUICK, "max_minutes=1e-9").code == 75
    path = the_run(workspace) / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()), sort_keys=True))
    done = train(*QUICK, "resume=auto")
    assert done.code == 0
    assert f"resume=auto goes on with runs/default/{path.parent.name}." in done.out, done.out


def test_auto_follows_a_place_in_a_config_file(train, workspace, pictures, tmp_path):
    """A job script names the scratch disk by a variable, and not on the command line."""
    text = (workspace / "configs/experiment/label_smoothing.yaml").read_text().split("\n", 1)[0]
    text += "\ndefaults:\n  - override /data: image_folder\ndata:\n  root: ${oc.env:PLACE}\n  size: 8\n"
    (workspace / "configs/experiment/scratch.yaml").write_text(text)
    options = (*QUICK[:2], *QUICK[3:], "experiment=scratch", "batch_size=8", "resume=auto")
    pictures.rename(tmp_path / "first")
    assert train(*options, "max_steps=2", PLACE=str(tmp_path / "first")).code == 0
    (tmp_path / "first").rename(tmp_path / "second")
    done = train(*options, "max_steps=3", PLACE=str(tmp_path / "second"))
    assert done.code == 0, done.out
    assert "resume=auto goes on with" in done.out


def test_a_key_that_a_run_lacks_may_not_change_it(train, workspace, pictures):
    """Its own config file may be older than the key."""
    path = workspace / "configs/data/mine.yaml"
    lines = (workspace / "configs/data/image_folder.yaml").read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("augment:")) + "\n")
    options = (*QUICK, "data=mine", f"data.root='{pictures}'", "data.size=8", "batch_size=8")
    assert train(*options).code == 0
    run, more = the_run(workspace), "+data.augment=[TrivialAugmentWide]"
    refused = train(f"resume={run}", more, "max_steps=3")
    assert refused.code == 2, refused.out
    assert "data cannot change in a resumed run" in refused.last
    done = train(*options, more, "resume=auto")
    assert "differs in data. A new run begins." in done.out, done.out


def test_a_run_that_cannot_be_listed(engine, tmp_path, monkeypatch):
    """It is still the run that was named, and not searched for links, so no command goes on with it."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "manifest.json"):
        (run / name).touch()

    def refuse(path="."):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert engine("tools.folders").runs_below(run) == [run]
        with pytest.raises(engine("errors").UserError, match=r"run cannot be read: Permission denied\."):
            engine("paths").refuse_links(run)


def test_class_names_that_do_not_fit(engine):
    with pytest.raises(engine("errors").UserError, match="3 values for a sample, but there are 1 class names"):
        engine("predictions").class_predictions(torch.zeros(2, 3), torch.zeros(2), ["a"])
