"""`python -m digits evaluate RUN`."""

import pytest
from helpers.tools import logged, result
from PIL import Image


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
