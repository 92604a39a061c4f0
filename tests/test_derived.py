"""Values that a config computes from the length of a run follow when it is made longer, or the run is refused."""

import pytest
from helpers.runs import result, rows, the_run

QUICK = ("model=mlp", "logger=none", "limit_train_batches=4", "log.every=4", "workers=0")
TORCH = ("scheduler=torch", "scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "scheduler.interval=epoch")


@pytest.fixture
def computed(workspace):
    """`computed(line)`: add a line to the project's experiment."""
    path = workspace / "configs/experiment/computed.yaml"

    def computed(line):
        path.write_text(f"# @package _global_\n{line}\n")
        return "experiment=computed"

    return computed


def assert_unchanged(folder, before):
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("scheduler: {T_max: '${epochs}'}", "scheduler.T_max=2"),
        ("scheduler: {T_max: '${accumulate}'}\naccumulate: ${keep_last}\nkeep_last: ${epochs}", "accumulate=2"),
        ("scheduler: {T_max: 2}\nlimit_train_batches: ${epochs}", "limit_train_batches=2"),
    ],
    ids=["direct", "by a detour", "another key"],
)
def test_a_value_that_decides_the_result_is_refused(train, workspace, computed, line, key):
    options = (*QUICK[:2], *QUICK[3:], *TORCH, computed(line))
    assert train(*options, "epochs=2").code == 0
    folder = the_run(workspace)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = train(f"resume={folder}", "epochs=4")
    assert done.code == 2, done.out
    assert f"epochs cannot be changed: {key} was computed from it. Start a new run." in done.last
    assert_unchanged(folder, before)
    assert "is finished" in train(f"resume={folder}", "epochs=2").last


def test_in_the_command_too(train, workspace):
    options = (*QUICK, *TORCH, "+scheduler.T_max=${max_steps}")
    assert train(*options, "max_steps=8").code == 0
    done = train(f"resume={the_run(workspace)}", "max_steps=16")
    assert (done.code, "scheduler.T_max=8 was computed from it" in done.last) == (2, True)


def test_a_value_that_decides_no_result_follows(train, workspace, computed):
    options = (*QUICK, computed("val_every_steps: ${max_steps}\nname: of_${max_steps}"), "scheduler=constant")
    assert train(*options, "max_steps=8").code == 0
    folder = the_run(workspace, "of_8")
    done = train(f"resume={folder}", "max_steps=16")
    assert done.code == 0, done.out
    assert [row["step"] for row in rows(folder) if "val/acc" in row] == [8, 16]
    assert train(*options, "max_steps=16").code == 0
    assert result(folder)["weights_sha256"] == result(the_run(workspace, "of_16"))["weights_sha256"]
    config = (folder / "config.yaml").read_text()
    assert "val_every_steps: 16\n" in config
    assert "name: of_8\n" in config


def test_a_length_that_is_computed_follows(train, workspace, computed):
    options = (*QUICK, computed("max_steps: ${epochs}"), "scheduler=constant")
    assert train(*options, "epochs=4").code == 0
    folder = the_run(workspace)
    assert result(folder)["steps"] == 4
    assert train(f"resume={folder}", "epochs=6").code == 0
    assert result(folder)["steps"] == 6
    done = train(f"resume={folder}", "epochs=8", "max_steps=7")
    assert done.code == 0, done.out
    assert result(folder)["steps"] == 7


def test_files_that_changed_meanwhile_are_told(train, workspace, computed):
    options = (*QUICK, *TORCH, computed("scheduler: {T_max: '${epochs}'}"))
    assert train(*options, "epochs=2").code == 0
    (workspace / "configs/experiment/computed.yaml").unlink()
    done = train(f"resume={the_run(workspace)}", "epochs=4")
    assert done.code == 0, done.out
    assert "The config files have changed. What they computed from epochs stays as it was." in done.out


def test_a_config_that_computes_nothing_is_made_longer_without_a_word(train, workspace):
    assert train(*QUICK, "scheduler=constant", "epochs=2").code == 0
    done = train(f"resume={the_run(workspace)}", "epochs=3")
    assert done.code == 0, done.out
    assert "computed" not in done.out
