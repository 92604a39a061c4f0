"""curves.png: loss, metrics and learning rates of a finished run."""

import importlib
import json
import math
import subprocess
import sys
import warnings

import pytest
from helpers.runs import the_run


@pytest.fixture
def figures(engine, monkeypatch, tmp_path):
    """`figures(rows)`: the axes that `draw_curves` makes of rows, drawn for real."""
    curves = importlib.import_module("digits.engine.tools.curves")
    drawn = []
    save = curves.save_figure

    def saved(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(curves, "save_figure", saved)

    def figures(rows, monitor="val/acc", best=None):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = curves.draw_curves(tmp_path, monitor, best)
        assert path == tmp_path / "curves.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        return drawn[-1].axes

    return figures


def labels(axes) -> list[str]:
    return [line.get_label() for line in axes.lines]


def test_curves_of_loss_metrics_and_rates(figures):
    rows = [
        {"step": 1, "train/loss": 2.0, "train/acc": 0.1, "train/grad_norm": 50.0, "lr/a": 0.1, "lr/b": 0.01},
        {"step": 2, "train/loss": 1.0, "train/acc": 0.5, "train/grad_norm": 40.0, "lr/a": 0.2, "lr/b": 0.02},
        {"step": 2, "val/loss": 1.5, "val/acc": 0.75},
        {"step": 3, "train/loss": 0.01, "train_epoch/loss": 1.2, "lr/a": 0.3, "lr/b": 0.03},
        {"step": 3, "val/loss": 1.4, "val/acc": 0.7},
    ]
    loss, metrics, rates = figures(rows, best=0.75)
    assert labels(loss) == ["training", "validation"]
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3]
    assert list(loss.lines[1].get_ydata()) == [1.5, 1.4]
    assert loss.get_yscale() == "log"
    assert labels(metrics) == ["training", "validation", "best acc 0.75"]
    assert (metrics.lines[2].get_xdata()[0], metrics.lines[2].get_ydata()[0]) == (2, 0.75)
    assert metrics.get_ylabel() == "acc"
    assert labels(rates) == ["a", "b"]
    assert list(rates.lines[1].get_ydata()) == [0.01, 0.02, 0.03]
    assert loss.get_shared_x_axes().joined(loss, rates)


def test_curves_of_ugly_runs(figures, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (loss, rates) = figures([{"step": 1, "train/loss": 2.0, "lr/all": 0.1}])
        assert loss.lines[0].get_marker() == rates.lines[0].get_marker() == "."  # a line would be invisible
        loss, metrics, _ = figures(
            [
                {"step": 1, "train/loss": math.nan, "val/准确率 a": math.inf, "lr/all": 0.0},
                {"step": 2, "train/loss": 1.0, "val/准确率 a": 0.5, "lr/all": 0.0},
            ]
        )
        assert [math.isnan(y) for y in loss.lines[0].get_ydata()] == [True, False]
        assert metrics.get_ylabel() == "准确率 a"
        assert [math.isfinite(y) for y in metrics.lines[0].get_ydata()] == [False, True]
        many = {f"lr/group{n}": 0.1 / (n + 1) for n in range(100)} | {f"val/metric{n}": float(n) for n in range(30)}
        _, metrics, rates = figures([{"step": s, "train/loss": 1.0, **many} for s in (1, 2)])
        assert len(rates.lines) == 100
        assert rates.get_legend() is metrics.get_legend() is None
        figures([])
    assert not caplog.records


def test_curves_need_no_torch(project):
    code = "import sys; sys.path.insert(0, '.'); import digits.engine.tools.curves; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=project, text=True) == "False\n"


def test_a_run_does_not_fail_with_its_picture(train, workspace):
    plots = workspace / "digits/engine/tools/folders.py"
    plots.write_text(
        plots.read_text().replace("figure.savefig(", "raise OSError(28, 'No space left'); figure.savefig(")
    )
    done = train("epochs=1", "limit_train_batches=1", "log.curves=true", "logger=none", "model=mlp")
    assert done.code == 0, done.out
    assert done.out.count("No curves.png was drawn: ") == 1
    assert done.out.count("No space left") == 1
    assert "Traceback" not in done.out
    assert json.loads((the_run(workspace) / "manifest.json").read_text())["status"] == "finished"
