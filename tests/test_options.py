"""Every option of the config, and every shipped choice, does what it says."""

import pytest
from helpers.runs import result, rows, the_run
from helpers.template import CONFIGS


def test_terms_of_a_loss_are_weighted_and_logged(train, workspace):
    options = ("loss=terms", "loss.terms.ce.weight=2", "loss.terms.margin.weight=0.5", "epochs=1", "logger=none")
    done = train(*options, "+loss.terms.extra={weight: 1.0, loss: {_target_: .scaled.Scaled}}")
    assert done.code == 2  # there is no such module
    (workspace / "digits/scaled.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Scaled(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.scale = nn.Parameter(torch.ones(()))\n\n"
        "    def forward(self, logits, labels):\n        return (self.scale - 2) ** 2\n"
    )
    done = train(*options, "+loss.terms.extra={weight: 1.0, loss: {_target_: .scaled.Scaled}}")
    assert done.code == 0, done.out
    for prefix in ("train", "train_epoch", "val"):
        row = next(row for row in rows(the_run(workspace)) if f"{prefix}/ce" in row)
        total = 2 * row[f"{prefix}/ce"] + 0.5 * row[f"{prefix}/margin"] + row[f"{prefix}/extra"]
        assert row[f"{prefix}/loss"] == pytest.approx(total, rel=1e-5)
    assert row["val/extra"] < 1, "the loss's own parameter was trained"


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_is_keyed(train, workspace, mix):
    options = (f"mix={mix}", "epochs=1", "logger=none")
    for name in ("a", "b"):
        assert train(*options, f"name={name}", f"log.every={3 if name == 'a' else 50}").code == 0
    assert train("epochs=1", "logger=none", "name=c").code == 0
    hashes = [result(the_run(workspace, name))["weights_sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "overrides",
    [
        ("precision=bf16",),
        ("loss.label_smoothing=0.1",),
        ("clip_grad_value=0.01",),
        ("clip_grad_norm=0.01", "clip_grad_value=0.1"),
    ],
    ids=" ".join,
)
def test_a_switch_changes_the_result(train, workspace, overrides):
    assert train("epochs=1", "logger=none", "name=plain").code == 0
    done = train("epochs=1", "logger=none", "name=switched", *overrides)
    assert done.code == 0, done.out
    plain, switched = (result(the_run(workspace, n))["weights_sha256"] for n in ("plain", "switched"))
    assert plain != switched
    if "clip" in overrides[0]:
        assert "train/grad_norm" in rows(the_run(workspace, "switched"))[0]


def test_limits_and_frequencies(train, workspace):
    done = train("limit_train_batches=5", "limit_val_batches=2", "epochs=3", "val_every_epochs=2", "logger=none")
    assert done.code == 0, done.out
    assert result(the_run(workspace))["steps"] == 15
    assert [row["step"] for row in rows(the_run(workspace)) if "val/acc" in row] == [10, 15]
    (accuracy, *_) = [row["val/acc"] for row in rows(the_run(workspace)) if "val/acc" in row]
    assert accuracy * 128 == pytest.approx(round(accuracy * 128), abs=1e-4), "a share of two batches of 64"


NEED_MORE = ("finetune", "timm", "torch", "torchvision", "bce", "multilabel")
"""Choices that need an argument, or pictures with several labels (pictures/test_tables.py trains those)."""
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONFIGS.values()
    if path.parent.name not in ("data", "sweep") and path.stem not in NEED_MORE
)


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["=".join(c) for c in CHOICES])
def test_every_choice_trains_three_steps(train, workspace, group, choice):
    data = ["data=synthetic", "data.size=96"] if group == "model" else []  # some shrink 8×8 to nothing
    data += ["logger.wandb.mode=offline"] if choice == "wandb" else []
    done = train(f"{group}={choice}", *data, "max_steps=3", "name=choice", "batch_size=16", "limit_val_batches=2",
                 "val_every_steps=2")  # fmt: skip
    assert done.code == 0, done.out
    assert result(the_run(workspace, "choice"))["steps"] == 3
