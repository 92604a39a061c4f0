"""A user's mistake ends a run in one sentence, before there is a run folder."""

import pytest


def test_what_a_task_and_a_data_set_must_have(train, workspace):
    task = workspace / "digits/task.py"
    task.write_text(task.read_text().replace("def training_step", "def trainingstep"))
    done = train()
    assert done.code == 2
    assert "training_step" in done.last
    assert not (workspace / "runs").exists()


WRONG = [
    (["mix=mixup", "data=lines"], "mix"),
    (["precision=tf32"], "precision=tf32"),
    (["clip_grad_norm=0"], "clip_grad_norm"),
    (["early_stopping_patience=-1"], "early_stopping_patience"),
    (["loss=terms", "loss.terms=null"], "loss"),
    (["loss=terms", "loss.terms.ce.weight=much"], "loss.terms.ce.weight"),
    (["optimizer.layer_decay=2"], "layer_decay"),
    (["optimizer.groups=[{match: 'x*'}]"], "'x*'"),
    (["optimizer.groups=3"], "optimizer.groups"),
]


def test_a_share_that_cannot_be_computed(train, workspace):
    (workspace / "digits/sharing.py").write_text(
        "from .engine.api import Share\nfrom .task import Classification\n\n"
        "class Sharing(Classification):\n    def validation_step(self, model, batch, ctx):\n"
        "        share = Share(lambda labels: self.nothing[labels], batch[1])\n"
        "        return {**super().validation_step(model, batch, ctx), 'share': share}\n"
    )
    done = train("task._target_=.sharing.Sharing", "logger=none")
    assert done.code == 2
    assert "has no attribute 'nothing'" in done.last
    assert "Traceback" not in done.out
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(("overrides", "named"), WRONG, ids=[" ".join(o) for o, _ in WRONG])
def test_wrong_combinations(train, workspace, overrides, named):
    (workspace / "digits/data/lines.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom ..engine.api import Data\n\n"
        "class Lines(Data):\n    info = {'shape': (1, 8, 8)}\n\n    def split(self, name):\n"
        "        return TensorDataset(torch.randn(99, 1, 8, 8), torch.zeros(99).long())\n"
    )
    (workspace / "configs/data/lines.yaml").write_text("_target_: .data.lines.Lines\n")
    done = train(*overrides, *(["+model.classes=3"] if "data=lines" in overrides else []))
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert named in done.last
    assert not (workspace / "runs").exists()
