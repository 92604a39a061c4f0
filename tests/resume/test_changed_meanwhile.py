"""A resume accepts some changes and refuses others."""

import json
import shutil

from helpers.runs import BASE, assert_stopped_as_whole, result, the_run


def test_train_yaml_may_change_meanwhile(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="13", WITH="SIGTERM").code == 75
    path = workspace / "configs/train.yaml"
    changed = path.read_text().replace("lr: 0.003", "lr: 0.5").replace("batch_size: 64", "batch_size: 8")
    changed = changed.replace("- model: cnn", "- model: mlp").replace("epochs: 20", "epochs: 1")
    path.write_text(changed.replace("seed: 0", "seed: 3"))
    assert train(f"resume={the_run(workspace, 'stopped')}").code == 0
    assert_stopped_as_whole(workspace)


def test_weights_to_start_from_may_be_gone(train, workspace):
    assert train(*BASE, "name=before").code == 0
    weights = workspace / "weights.pt"
    shutil.copy(the_run(workspace, "before") / "checkpoints/best.pt", weights)
    assert train(*BASE, "name=whole", f"init_from={weights}").code == 0
    assert train(*BASE, "name=stopped", f"init_from={weights}", AT="13", WITH="SIGTERM").code == 75
    weights.unlink()
    done = train(f"resume={the_run(workspace, 'stopped')}")
    assert done.code == 0, done.out
    assert_stopped_as_whole(workspace)


def test_changed_data_go_on_where_they_are_allowed(train, workspace, pictures):
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "batch_size=16")
    assert train(*options, AT="4", WITH="SIGTERM").code == 75
    next(pictures.rglob("*.png")).unlink()
    folder = the_run(workspace)
    done = train(f"resume={folder}", "allow_changed_data=true")
    assert done.code == 0, done.out
    assert "no longer bit-exact: data " in done.out
    (resumed,) = json.loads((folder / "manifest.json").read_text())["resumed"]
    assert resumed["step"] == 5
    assert resumed["differences"][0].startswith("data ")


def test_changed_data_are_refused(train, workspace, pictures):
    options = (*BASE, "data=image_folder", f"data.root={pictures}", "batch_size=16")
    assert train(*options, AT="4", WITH="SIGTERM").code == 75
    next(pictures.rglob("*.png")).unlink()
    done = train(f"resume={the_run(workspace)}")
    assert done.code == 2
    assert "data have changed" in done.last


def test_overrides_of_a_resumed_run(train, workspace):
    assert train(*BASE, "name=whole").code == 0
    assert train(*BASE, "name=stopped", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for bad in ("lr=0.1", "model.width=8", "batch_size=32", "seed=5", "epochs=1", "model=mlp"):
        done = train(f"resume={folder}", bad)
        assert done.code == 2, (bad, done.out)
        assert bad.split("=")[0].split(".")[0] in done.last
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    done = train(f"resume={folder}", "workers=1", "log.every=3", "val_every_steps=7", "save_every_steps=9", "epochs=2")
    assert done.code == 0, done.out
    whole, stopped = the_run(workspace, "whole"), the_run(workspace, "stopped")
    assert result(stopped)["weights_sha256"] == result(whole)["weights_sha256"]


def test_other_parameter_groups_than_the_run_began_with_are_refused(train, workspace):
    """As another release may make for a model, such as one layer more of `layer_decay`."""
    assert train(*BASE, "name=stopped", "optimizer.layer_decay=0.9", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole.replace('"lr/all/head"', '"lr/all/last"'))
    done = train(f"resume={folder}")
    assert done.code == 2, done.out
    assert "The config now makes other parameter groups than when the run began." in done.last
    (folder / "metrics.jsonl").write_text(whole)
    assert train(f"resume={folder}").code == 0


def test_a_finished_run_can_be_made_longer(train, workspace):
    assert train(*BASE, "scheduler=constant", "name=whole", "epochs=3").code == 0
    assert train(*BASE, "scheduler=constant", "name=stopped").code == 0
    folder = the_run(workspace, "stopped")
    done = train(f"resume={folder}", "epochs=3")
    assert done.code == 0
    assert "epochs changed" in done.out
    assert_stopped_as_whole(workspace)


def test_resume_auto_takes_an_equal_run_only(train, workspace):
    assert train(*BASE, AT="13", WITH="SIGTERM").code == 75
    assert train(*BASE, "resume=auto", "lr=0.01").code == 0
    assert len([p for p in (workspace / "runs/default").iterdir() if p.name[0] != "."]) == 2
