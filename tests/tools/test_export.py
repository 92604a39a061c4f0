"""`python -m digits export RUN`."""

import json
import shutil

import pytest
import torch


def test_exported_models_compute_what_the_model_does(tool, engine, digits, ema_run):
    engine("rng")
    from digits.engine.tools.open_run import open_run
    from safetensors import safe_open
    from safetensors.torch import load_file

    done = tool("export", ema_run)
    assert done.code == 0, done.out
    model = open_run(ema_run).built.model
    program = torch.export.load(ema_run / "model.pt2").module()
    for size in (1, 7):
        images = torch.randn(size, 1, 8, 8)
        assert torch.allclose(program(images), model(images), atol=1e-5)
    weights, own = load_file(ema_run / "model.safetensors"), model.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[key], own[key]) for key in own)
    stored = torch.load(ema_run / "checkpoints/best.pt", weights_only=True)
    assert torch.equal(weights["head.weight"], stored["ema"]["head.weight"])
    with safe_open(ema_run / "model.safetensors", "pt") as file:
        facts = file.metadata()
    assert json.loads(facts["class_names"]) == [str(i) for i in range(10)]
    assert json.loads(facts["shape"]) == [1, 8, 8]
    assert json.loads(facts["mean"]) == pytest.approx([0.3])
    assert json.loads(facts["std"]) == pytest.approx([0.37])


def test_export_to_onnx(tool, engine, run, tmp_path):
    import onnxruntime

    engine("rng")
    from digits.engine.tools.open_run import open_run

    done = tool("export", run, "--format", "onnx", "--out", tmp_path / "out")
    assert done.code == 0, done.out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    model = open_run(run).built.model
    for size in (1, 7):
        images = torch.randn(size, 1, 8, 8)
        (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert torch.allclose(torch.from_numpy(output), model(images), atol=1e-5)


def test_a_model_that_exports_to_something_else_is_not_written(tool, digits, run, tmp_path):
    project = shutil.copytree(digits, tmp_path / "digits", ignore=shutil.ignore_patterns("runs"))
    mlp = project / "digits/engine/models/mlp.py"
    code = mlp.read_text().replace("from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn")
    code = code.replace("return self.layers(x)", "return self.layers(x) + float(torch.compiler.is_exporting())")
    mlp.write_text(code)
    done = tool("export", run, "--out", tmp_path / "out", project=project)
    assert done.code == 1
    assert "torch computes something else" in done.last
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_a_failure_is_one_sentence(tool, digits, run, tmp_path, name):
    """torch prints a warning and two graphs before it raises."""
    project = shutil.copytree(digits, tmp_path / "digits", ignore=shutil.ignore_patterns("runs"))
    mlp = project / "digits/engine/models/mlp.py"
    code = "return self.layers(x if float(x.sum()) < 1e9 else -x)"
    mlp.write_text(mlp.read_text().replace("return self.layers(x)", code))
    command = ("export", run, "--out", tmp_path / "out", "--format", name)
    done = tool(*command, project=project)
    assert (done.code, done.out.count("\n")) == (1, 1), done.out
    assert done.out.startswith(f"The model cannot be exported as {name}: ")
    assert done.out.endswith(" Add -v to see the traceback.\n")
    loud = tool(*command, "-v", project=project)
    assert loud.code == 1
    assert "Traceback" in loud.out
    assert "def forward(self" in loud.out  # a graph


def test_a_full_disk_is_not_the_models_mistake(tool, digits, run, tmp_path):
    project = shutil.copytree(digits, tmp_path / "digits", ignore=shutil.ignore_patterns("runs"))
    code = project / "digits/engine/tools/export.py"
    full = "raise OSError(28, 'No space left')"
    code.write_text(code.read_text().replace("    save_model(", f"    {full}\n    save_model("))
    done = tool("export", run, "--format", "safetensors", "--out", tmp_path / "out", project=project)
    assert done.code == 2, done.out
    assert "Cannot write to" in done.last
    assert "No space left" in done.last
