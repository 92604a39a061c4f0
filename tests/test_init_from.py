"""Weights to start from: `init_from` and `init_rename`."""

import pytest
import torch
from helpers.runs import result, the_run


def test_init_from(train, workspace, tmp_path):
    assert train("epochs=2", "logger=none", "name=first").code == 0
    best = the_run(workspace, "first") / "checkpoints/best.pt"
    done = train("epochs=1", "logger=none", "name=second", f"init_from={best}", "lr=1e-8")
    assert done.code == 0, done.out
    assert "tensors of the model." in done.out
    assert result(the_run(workspace, "second"))["best"] == pytest.approx(
        result(the_run(workspace, "first"))["best"], abs=0.02
    )
    model = torch.load(best, weights_only=True)["model"]
    torch.save({f"module.{k}": v for k, v in model.items() if "head" not in k}, tmp_path / "renamed.pt")
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}")
    assert done.code == 2
    assert "module." in done.last
    done = train("epochs=1", f"init_from={tmp_path / 'renamed.pt'}", "init_rename=['^module[.]=>']", "logger=none")
    assert done.code == 0, done.out
    assert "missing in the file, left as initialised: head.weight" in done.out
    done = train("epochs=1", "init_from=/nowhere.pt")
    assert done.code == 2
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert train("epochs=1", f"init_from={tmp_path / 'junk.pt'}").code == 2


def test_init_from_safetensors(train, workspace, tmp_path):
    from safetensors.torch import save_file

    assert train("epochs=1", "logger=none", "name=first").code == 0
    state = torch.load(the_run(workspace, "first") / "checkpoints/best.pt", weights_only=True)["model"]
    save_file(state, tmp_path / "weights.safetensors")
    done = train("epochs=1", "logger=none", f"init_from={tmp_path / 'weights.safetensors'}")
    assert done.code == 0, done.out
    assert f"{len(state)} of {len(state)} tensors" in done.out
