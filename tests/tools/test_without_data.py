"""Verbs take names and shapes from the run, not from the data as they are today."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.runs import the_run
from PIL import Image

OPTIONS = ("model=mlp", "batch_size=8", "epochs=12", "lr=0.01", "workers=0", "logger=none", "log.curves=false")


@pytest.fixture(scope="module")
def trained(project, server, tmp_path_factory):
    """A project with a run on pictures of a dark `cat` and a bright `dog`, and two other pictures."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("pictures") / "digits")
    draw = np.random.default_rng(0)
    for name, grey in (("cat", 60), ("dog", 190)):
        (folder / "data/pets" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(draw.normal(grey, 10, (16, 12)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data/pets" / name / f"{number}.png")
        Image.fromarray(np.full((20, 20), grey, np.uint8)).save(folder / f"a {name}.png")
    done = server.run(folder / "train.py", *OPTIONS, "data=image_folder", "data.root=data/pets")
    assert done.code == 0, done.out
    return folder


@pytest.fixture
def verb(server, trained):
    """`verb(name, *arguments)` for the run of `trained`, whose data are put back afterwards."""
    pets, kept = trained / "data/pets", trained / "data/kept"
    shutil.copytree(pets, kept)
    run = str(next((trained / "runs").glob("*/*")))
    yield lambda name, *rest: server.run(trained / "digits/__main__.py", name, run, *map(str, rest), cwd=trained)
    shutil.rmtree(pets, ignore_errors=True)
    kept.rename(pets)


def rename(trained):
    (trained / "data/pets/dog").rename(trained / "data/pets/bird")


def remove(trained):
    shutil.rmtree(trained / "data/pets")


@pytest.mark.parametrize("change", [rename, remove])
def test_predictions_carry_the_names_of_the_run(trained, verb, tmp_path, change):
    change(trained)
    done = verb("predict", "a cat.png", "a dog.png", "--out", tmp_path / "out.jsonl")
    assert done.code == 0, done.out
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["cat", "dog"]


def test_export_is_the_same_without_the_data(trained, verb, tmp_path):
    facts, picture = [], torch.linspace(-1, 1, 192).reshape(1, 1, 16, 12)
    for name in ("with", "without"):
        done = verb("export", "--format", "torch", "--out", tmp_path / name)
        assert done.code == 0, done.out
        extra = {"metadata.json": ""}
        model = torch.export.load(tmp_path / name / "model.pt2", extra_files=extra)
        facts.append((json.loads(extra["metadata.json"]), model.module()(picture).tolist()))
        shutil.rmtree(trained / "data/pets", ignore_errors=True)
    assert facts[0] == facts[1]
    assert facts[0][0]["class_names"] == '["cat", "dog"]'


def test_data_that_contradict_the_run_are_not_evaluated(trained, verb):
    rename(trained)
    done = verb("evaluate")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert "bird, dog" in done.out
    remove(trained)
    done = verb("evaluate")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert "does not exist" in done.out


def test_data_that_moved(trained, verb, server, tmp_path):
    """`data.root=NEW` is enough if the data are the same, for verbs and for resuming, also twice."""
    run = shutil.copytree(the_run(trained), trained / "runs/moved/run")
    for epochs, (before, moved) in enumerate(
        ((trained / "data/pets", tmp_path / "first"), (tmp_path / "first", tmp_path / "second")), start=13
    ):
        shutil.move(before, moved)
        done = verb("evaluate", f"data.root={moved}", "--out", tmp_path)
        assert done.code == 0, done.out
        assert "have changed" not in done.out
        done = server.run(trained / "train.py", f"resume={run}", f"data.root={moved}", f"epochs={epochs}")
        assert done.code == 0, done.out
        assert "not used" not in done.out
        assert f"root: {moved}" in (run / "config.yaml").read_text()
    (moved / "cat/0.png").unlink()
    done = server.run(trained / "train.py", f"resume={run}", f"data.root={moved}", "epochs=15")
    assert done.code == 2
    assert "data have changed" in done.last
    done = verb("evaluate", "data.size=3")
    assert (done.code, done.out.count("\n")) == (2, 1)
    assert "data.root=PATH" in done.out
    shutil.rmtree(trained / "runs/moved")


def test_a_checkpoint_of_an_older_release_has_no_info(trained, verb, server, tmp_path):
    """Then today's data say it."""
    run = shutil.copytree(the_run(trained), tmp_path / "old")
    for path in (run / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        assert state.pop("info") == {"shape": (1, 16, 12), "classes": 2, "class_names": ["cat", "dog"]}
        torch.save(state, path)
    done = server.run(trained / "digits/__main__.py", "predict", str(run), "a dog.png", cwd=trained)
    assert done.code == 0, done.out
    assert "a dog.png,dog," in done.out


def test_what_a_checkpoint_holds_of_info(engine):
    plain = engine("build.parts").plain
    info = {"classes": 3, "shape": torch.Size((1, 2)), "points": torch.zeros(2), "names": ["a", None], 5: {"x": 1.5}}
    held = plain(
        {**info, "arrays": [np.zeros(2)], "mixed": (1, torch.zeros(1)), "nested": {"t": torch.zeros(1), "n": 1}}
    )
    assert held == {"classes": 3, "shape": (1, 2), "names": ["a", None], "5": {"x": 1.5}, "nested": {"n": 1}}
    assert type(held["shape"]) is tuple
