"""`python -m digits evaluate|predict|export|compare` on finished runs."""

import csv
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.forkserver import Result, Server
from PIL import Image

Tool = Callable[..., Result]

SMALL = ("logger=none", "log.level=error", "epochs=2", "workers=0")
MLP = ("model=mlp", "model.hidden=[32]")


@pytest.fixture(scope="module")
def digits(project: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with finished runs; tests that change a run take a copy of it."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("tools") / "digits")
    for overrides in (
        ("name=seeds", *MLP, "seed=0"),
        ("name=seeds", *MLP, "seed=1"),
        ("name=seeds", *MLP, "seed=2"),
        ("name=seeds", *MLP, "seed=0", "lr=0.01"),
        ("name=ema", "ema_decay=0.9", "model=cnn", "model.width=4", "batch_size=40", "accumulate=2"),
    ):
        done = server.run(folder / "train.py", *SMALL, *overrides)
        assert done.code == 0, done.out
    return folder


@pytest.fixture
def tool(server: Server, digits: Path) -> Tool:
    """`tool(*arguments)`: the result of `python -m digits *arguments`."""

    def tool(*arguments: object, project: Path = digits) -> Result:
        return server.run(project / "digits/__main__.py", *map(str, arguments), cwd=project)

    return tool


def runs(digits: Path, name: str) -> list[Path]:
    return sorted(p for p in (digits / "runs" / name).iterdir() if not p.name.startswith("."))


@pytest.fixture
def run(digits: Path, tmp_path: Path) -> Path:
    """A run that was moved out of its project."""
    return shutil.copytree(runs(digits, "seeds")[0], tmp_path / "elsewhere/a run")


@pytest.fixture
def ema_run(digits: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs(digits, "ema")[0], tmp_path / "elsewhere/ema")


def logged(run: Path) -> dict:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "val/loss" in row][-1]


def result(folder: Path, split: str = "val") -> dict:
    return json.loads((folder / f"evaluate-{split}.json").read_text())


# ---------------------------------------------------------------- evaluate


@pytest.mark.parametrize("kind", ["run", "ema_run"])
def test_evaluate_gives_the_logged_values_bit_for_bit(tool, kind, request):
    run = request.getfixturevalue(kind)
    done = tool("evaluate", run, "--checkpoint", "last")
    assert done.code == 0, done.out
    found = result(run)
    row = logged(run)
    assert found["values"] == {key: row[key] for key in ("val/loss", "val/acc")}
    assert found["step"] == row["step"]
    assert found["weights"] == ("ema" if kind == "ema_run" else "model")


def test_evaluate_counts_each_sample_once(tool, run):
    assert tool("evaluate", run, "--split", "test").code == 0
    found = result(run, "test")
    matrix = found["confusion"]
    assert sum(map(sum, matrix)) == found["samples"] == 250
    right = sum(matrix[i][i] for i in range(10))
    assert found["values"]["test/acc"] == pytest.approx(right / 250)
    for place, name in enumerate(found["class_names"]):
        scores = found["classes"][name]
        assert scores["support"] == sum(matrix[place])
        assert scores["recall"] == pytest.approx(matrix[place][place] / sum(matrix[place]))
        predicted = sum(row[place] for row in matrix)
        assert scores["precision"] == pytest.approx(matrix[place][place] / predicted if predicted else 0)
    assert Image.open(run / "confusion-test.png").size[0] > 200


def test_evaluate_elsewhere_leaves_the_run_as_it_is(tool, run, tmp_path):
    before = sorted(run.rglob("*"))
    done = tool("evaluate", run, "--out", tmp_path / "new/folder", "--batch-size", "7")
    assert done.code == 0, done.out
    assert sorted(run.rglob("*")) == before
    best = tool("evaluate", run, "--out", tmp_path / "best")
    assert best.code == 0
    one, other = result(tmp_path / "new/folder"), result(tmp_path / "best")
    assert one["confusion"] == other["confusion"]
    assert one["values"]["val/loss"] == pytest.approx(other["values"]["val/loss"], rel=1e-5)


def test_a_damaged_checkpoint_is_passed_over(tool, run):
    best = run / "checkpoints/best.pt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.unlink()  # it shares its content with a numbered one
    best.write_bytes(content)
    done = tool("evaluate", run)
    assert done.code == 0, done.out
    assert "best.pt is damaged" in done.out
    assert result(run)["checkpoint"].startswith("step-")


# ---------------------------------------------------------------- predict


@pytest.fixture
def validation_pictures(engine, digits, tmp_path) -> tuple[Path, list[int]]:
    """The validation pictures of the digits as PNG files, and their labels."""
    engine("rng")  # makes `digits` importable
    from digits.data.digits import Digits

    folder = tmp_path / "val pictures"
    folder.mkdir()
    images = Digits(shift=1).split("val")
    for number in range(len(images)):
        Image.fromarray(images.canvases[number, 0]).save(folder / f"{number:03}.png")
    return folder, images.labels.tolist()


def test_a_file_is_predicted_as_it_is_evaluated(tool, run, validation_pictures, tmp_path):
    folder, labels = validation_pictures
    out = tmp_path / "out.jsonl"
    assert tool("predict", run, folder, "--out", out).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == [f"{i:03}.png" for i in range(250)]
    assert tool("evaluate", run).code == 0
    matrix = [[0] * 10 for _ in range(10)]
    for row, label in zip(rows, labels, strict=True):
        matrix[label][int(row["label"])] += 1
        assert row["probability"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert matrix == result(run)["confusion"]
    losses = [-math.log(row["probabilities"][str(y)]) for row, y in zip(rows, labels, strict=True)]
    assert statistics.fmean(losses) == pytest.approx(result(run)["values"]["val/loss"], rel=1e-5)


def test_predict_as_a_table_for_some_files_and_workers(tool, ema_run, validation_pictures):
    folder, _ = validation_pictures
    names = [folder / f"{i:03}.png" for i in (3, 1, 2)]
    done = tool("predict", ema_run, *names, "--batch-size", "2", "--workers", "2")
    assert done.code == 0, done.out
    rows = list(csv.DictReader(done.out.splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", *map(str, range(10))]
    assert [row["path"] for row in rows] == [str(name) for name in names]


def test_predict_with_an_image_folder(tool, train, workspace, pictures, tmp_path):
    done = train(*SMALL, *MLP, "data=image_folder", f'data.root="{pictures}"', "data.val_fraction=0.5", "batch_size=20")
    assert done.code == 0, done.out
    (run,) = (p for p in (workspace / "runs/default").iterdir() if not p.name.startswith("."))
    done = tool("evaluate", run, project=workspace)
    assert done.code == 0
    assert "Warning" not in done.out
    found = result(run)
    assert found["class_names"] == ["cross", "disc", "方块"]
    out = tmp_path / "out.csv"
    done = tool("predict", run, pictures, "--out", out, "--workers", "2", project=workspace)
    assert done.code == 0, done.out
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", "cross", "disc", "方块"]
    assert len(rows) == 120
    assert tool("evaluate", run, "--checkpoint", "last", project=workspace).code == 0
    assert result(run)["values"] == {key: logged(run)[key] for key in ("val/loss", "val/acc")}

    broken = tmp_path / "broken.png"
    broken.write_bytes((pictures / "disc/1.png").read_bytes()[:60])
    before = out.read_bytes()
    for workers in ("0", "2"):
        done = tool("predict", run, pictures / "disc", broken, "--out", out, "--batch-size", "8",
                    "--workers", workers, project=workspace)  # fmt: skip
        assert done.code == 2
        assert str(broken) in done.last
        assert "Traceback" not in done.out
    assert out.read_bytes() == before


# ---------------------------------------------------------------- export


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


def test_a_full_disk_is_not_the_models_mistake(tool, digits, run, tmp_path):
    project = shutil.copytree(digits, tmp_path / "digits", ignore=shutil.ignore_patterns("runs"))
    code = project / "digits/engine/tools/export.py"
    full = "raise OSError(28, 'No space left')"
    code.write_text(code.read_text().replace("    save_model(", f"    {full}\n    save_model("))
    done = tool("export", run, "--format", "safetensors", "--out", tmp_path / "out", project=project)
    assert done.code == 2, done.out
    assert "Cannot write to" in done.last
    assert "No space left" in done.last


# ---------------------------------------------------------------- compare


def test_compare_over_seeds(tool, digits, tmp_path):
    done = tool("compare", digits / "runs/seeds", "--out", tmp_path / "curves.png")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["run", "seed", "lr", "status", "steps"]
    folders = runs(digits, "seeds")
    values = []
    for folder in folders:
        (line,) = (line for line in lines if line.startswith(f"seeds/{folder.name} "))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["result"]["weights_sha256"].startswith(line.split()[-1])
        if "lr=0.01" not in manifest["overrides"]:
            values.append(manifest["result"]["last"])
    (line,) = (line for line in lines if "over seeds" in line)
    assert "val/acc over seeds 0, 1, 2 with lr=0.003: " in line
    assert f"last {statistics.fmean(values):.5g} ± {statistics.stdev(values):.2g}" in line
    assert Image.open(tmp_path / "curves.png").size[0] > 400


def test_compare_of_moved_and_unfinished_runs(tool, digits, run, ema_run, tmp_path):
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["result"]
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "stopped"}))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 9')
    done = tool("compare", tmp_path / "elsewhere", "--out", tmp_path / "new/curves.png", "--key", "train/loss")
    assert done.code == 0, done.out
    assert "stopped" in done.out
    assert "±" not in done.out
    assert (tmp_path / "new/curves.png").exists()


def test_compare_shows_a_missing_value_as_a_dash(engine):
    run = SimpleNamespace(config={"clip": None, "lr": 0.1})
    assert engine("tools.compare")._values(run, ["clip", "lr", "new"]) == ["-", "0.1", "-"]


@pytest.mark.parametrize(("value", "shown"), [("short", ["key=short0", "key=short1"]), ("long" * 20, ["a/0", "a/1"])])
def test_compare_names_curves_so_that_the_legend_fits(engine, monkeypatch, value, shown):
    compare, names = engine("tools.compare"), []
    monkeypatch.setattr(
        compare, "save_figure", lambda figure, _: names.extend(line.get_label() for line in figure.axes[0].lines)
    )
    runs = [
        SimpleNamespace(config={"key": f"{value}{n}"}, shown=f"a/{n}", rows=[{"step": 1, "val/acc": 0.5}])
        for n in range(2)
    ]
    compare.draw_comparison(runs, ["key"], "val/acc", Path("x.png"))
    assert names == shown


# ---------------------------------------------------------------- mistakes


def refused(done: Result, *words: str) -> None:
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert done.last.endswith(".")
    assert all(word in done.last for word in words), done.last


def test_mistakes_are_one_sentence(tool, digits, run, tmp_path):
    refused(tool("evaluate", "runs/nothing"), "runs/nothing")
    refused(tool("evaluate", "runs/seeds"), "is not a run", str(runs(digits, "seeds")[-1].name))
    refused(tool("evaluate", run, "--split", "dev"), "dev", "'val', 'test'")
    refused(tool("evaluate"), "RUN")
    refused(tool("evaluate", run, "--batch-size", "0"), "'0'")
    refused(tool("evaluate", run, "--checkpoint", "step-1.pt"), "step-1.pt", "best.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    refused(tool("evaluate", run, "--checkpoint", tmp_path / "other.pt"), "other.pt is not a checkpoint of a run")
    refused(tool("evaluate", run, "--device", "tpu"), "tpu")
    refused(tool("predict", run, tmp_path / "none.png"), "none.png")
    refused(tool("predict", run, run / "checkpoints"), "No file below")
    refused(tool("predict", run, tmp_path, "--out", "a.txt"), ".jsonl")
    refused(tool("predict", run, run / "config.yaml"), "config.yaml", "cannot be read")
    refused(tool("export", run, "--format", "tflite"), "tflite", "safetensors")
    refused(tool("compare", tmp_path / "none"), "none")
    refused(tool("compare", runs(digits, "ema")[0], "--key", "val/nothing", "--out", tmp_path / "x.png"), "val/nothing")
    (tmp_path / "file").touch()
    refused(tool("evaluate", run, "--out", tmp_path / "file"), "Cannot write to", "Choose another folder")
    shutil.rmtree(run / "checkpoints")
    refused(tool("evaluate", run), "no checkpoint")
    (run / "config.yaml").write_text("lr: [")
    refused(tool("evaluate", run), "config.yaml")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["compare", "runs/seeds"], 0), (["evaluate", "runs/seeds"], 2)],
    ids=["help", "compare", "mistake"],
)
def test_help_compare_and_mistakes_do_not_import_torch(digits, arguments, code):
    script = "import sys, runpy; sys.argv = sys.argv[:1] + {!r}\n"
    script += "try: runpy.run_module('digits', run_name='__main__')\n"
    script += "except SystemExit as end: assert end.code == {}\n"
    script += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script.format(arguments, code)], cwd=digits, check=True)
