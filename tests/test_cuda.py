"""The same promises on a GPU; skipped where there is none."""

import pytest
import torch
from helpers.runs import logged, result, rows, the_run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
QUICK = ("epochs=2", "logger=none", "device=cuda")


@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32", "bf16", "fp16"])
def test_runs_repeat_and_resume_exactly(train, workspace, precision):
    options = (*QUICK, f"precision={precision}", "clip_grad_norm=1", "ema_decay=0.9", "log.every=7")
    assert train(*options, "name=whole").code == 0
    assert train(*options, "name=again").code == 0
    assert train(*options, "name=stopped", "max_minutes=0.0001").code == 75
    assert train(*options, "name=stopped", "resume=auto").code == 0
    whole, again, stopped = (the_run(workspace, name) for name in ("whole", "again", "stopped"))
    assert result(whole) == result(again) == result(stopped)
    # As text: the norm of gradients that fp16 cannot hold is not a number, which equals nothing.
    assert str(logged(whole)) == str(logged(stopped))


@pytest.mark.parametrize(
    "overrides",
    [("channels_last=true",), ("accumulate=4",), ("mix=mixup",), ("optimizer=sgd",), ("model=resnet18",)],
    ids=" ".join,
)
def test_choices_train(train, workspace, overrides):
    done = train(*QUICK, *overrides)
    assert done.code == 0, done.out
    assert all(row["train/loss"] > 0 for row in rows(the_run(workspace)) if "train/loss" in row)


def test_the_default_project_learns_digits(train, workspace):
    assert train("logger=none", "device=cuda").code == 0
    assert result(the_run(workspace))["best"] >= 0.98


def test_image_folders_with_workers(train, workspace, pictures):
    options = (*QUICK, "data=image_folder", f"data.root={pictures}", "batch_size=16")
    for name, workers in (("a", 0), ("b", 2)):
        assert train(*options, f"name={name}", f"workers={workers}").code == 0
    assert result(the_run(workspace, "a")) == result(the_run(workspace, "b"))
