"""The starting point `regression`: what it reaches, shows and repeats."""

import pytest
from helpers.runs import result, rows
from helpers.starting_points import assert_nothing_of_others, point_fixture, shown

point = point_fixture("regression", "batch_size=16", "epochs=2", "val_every_epochs=1")


def test_it_learns_and_shows_the_fit(point):
    run = point.default_run()
    assert result(run)["best"] <= 1.2 * 0.3, "further off than the noise of the points"
    for row in rows(run):
        for place in ("train", "val"):
            if f"{place}/rmse" in row:
                assert row[f"{place}/rmse"] == pytest.approx(row[f"{place}/mse"] ** 0.5, rel=1e-9)
    assert sum("val/rmse" in row for row in rows(run)) == 12
    pictures, _ = shown(run)
    assert pictures["val/fit"] > 1


def test_nothing_of_other_starting_points(point):
    there = {
        "configs/data/arrays.yaml",
        "digits/data/arrays.py",
        "configs/data/parabola.yaml",
        "configs/model/net.yaml",
        "configs/experiment/noisy.yaml",
    }
    assert_nothing_of_others(
        point.project, there | {"digits/data/parabola.py", "digits/data/plots.py", "digits/models/net.py"}
    )


def test_it_is_small(point):
    point.assert_small({"task.py": 40, "models/net.py": 20, "data/parabola.py": 60, "data/plots.py": 25})


def test_exact(point):
    point.assert_exact()


def test_in_parts(point):
    point.assert_equal_in_parts()


def test_tools(point, tmp_path):
    assert point.train(*point.short, "name=tools").code == 0
    for name, text in {"a.csv": "0\n0.5\n", "b.txt": "-1\n"}.items():
        (tmp_path / name).write_text(text)
    said = point.assert_tools_work("tools", tmp_path, ["path", "x", "y"], 3)
    assert [(row["path"].rsplit("/", 1)[1], row["x"]) for row in said] == [
        ("a.csv:1", 0.0),
        ("a.csv:2", 0.5),
        ("b.txt:1", -1.0),
    ]
    (tmp_path / "b.txt").write_text("one\n")
    refused = point.tool("predict", point.run("tools"), tmp_path / "b.txt")
    assert refused.code == 2
    assert "'one'" in refused.last
    assert "Traceback" not in refused.out


def test_the_experiment(point):
    assert point.train("experiment=noisy", "epochs=1").code == 0
    assert result(point.run("noisy"))["best"] > 0.9  # the noise is 1


OTHER = """
from .task import Regression

class Silent(Regression):
    def predict_step(self, model, batch, ctx):
        raise AssertionError("evaluate makes a table of classes only")

    def show(self, model, batch, ctx):
        raise OSError("no pencil")

class Wrong(Regression):
    def derived(self, means):
        return {"rmse": means["mes"]}
"""


@pytest.fixture
def other(point):
    (point.project / "digits/other.py").write_text(OTHER)
    return lambda name: f"task._target_=.other.{name}"


def test_what_is_shown_can_fail_and_what_is_not_needed_is_not_predicted(point, other):
    done = point.server.run(point.project / "train.py", *point.short, other("Silent"), "name=silent")
    assert done.code == 0, done.out
    assert done.out.count("No texts and figures are shown: OSError: no pencil") == 1
    done = point.tool("evaluate", point.run("silent"))
    assert done.code == 0, done.out


def test_a_mistake_in_what_is_derived_is_told_before_the_run(point, other):
    done = point.train(*point.short, other("Wrong"), "name=wrong")
    assert done.code == 2
    assert "KeyError: 'mes' (digits/other.py, line 13)" in done.last
    assert not (point.project / "runs/wrong").exists()
    done = point.train(*point.short, "monitor=val/rsme", "monitor_mode=min", "name=wrong")
    assert done.code == 2
    assert "val/loss, val/mse, val/rmse" in done.last
