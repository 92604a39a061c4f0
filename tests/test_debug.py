"""`debug=NAME`: presets for the first look at a model, and for what goes wrong."""

import json
import math

import pytest
from helpers.runs import result, rows, the_run
from helpers.template import POINTS


def test_overfit_brings_the_loss_of_one_batch_to_almost_nothing(train, workspace):
    done = train("debug=overfit", "model=mlp", "workers=0")
    assert done.code == 0, done.out
    losses = [row["train/loss"] for row in rows(the_run(workspace, "debug")) if "train/loss" in row]
    assert result(the_run(workspace, "debug"))["steps"] == 200
    assert losses[0] > 1
    assert losses[-1] < 0.1  # the pictures are shifted at random, so it does not reach 0


def test_fast_does_everything_once(train, workspace):
    done = train("debug=fast", "workers=0", "test=true", "log.curves=true")
    assert done.code == 0, done.out
    run = the_run(workspace, "debug")
    assert result(run)["steps"] == 4
    assert sum("val/loss" in row for row in rows(run)) == 2
    assert (run / "curves.png").exists()
    assert "test" in json.loads((run / "manifest.json").read_text())


def test_nan_names_the_operation(train, workspace):
    task = workspace / "digits/task.py"
    text, line = task.read_text(), "        logits = model(images)\n"
    root = "        root = (logits.sum() * 0).sqrt() if ctx.step == 3 else 0.0  # its gradient is 0 / 0\n"
    loss = "self.loss(logits, labels)"
    assert line + f'        return {{"loss": {loss}' in text
    task.write_text(text.replace(line, line + root).replace(f'"loss": {loss}', f'"loss": {loss} + 0.0 * root'))
    plain = train("model=mlp", "workers=0", "logger=none", "name=plain")
    done = train("debug=nan", "model=mlp", "workers=0")
    assert (plain.code, done.code) == (76, 76), done.out
    assert "SqrtBackward0" not in plain.out
    assert "Function 'SqrtBackward0' returned nan values" in done.last
    losses = [row["train/loss"] for row in rows(the_run(workspace, "debug")) if "train/loss" in row]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    assert "task.py" in done.out  # the line of the forward pass


def test_profile_traces_a_few_steps(train, workspace):
    done = train("debug=profile", "model=mlp", "workers=0")
    assert done.code == 0, done.out
    run = the_run(workspace, "debug")
    assert (run / "profile/trace.json").exists()
    assert "aten::" in (run / "train.log").read_text()


def test_presets_come_after_the_experiment_and_before_the_command_line(engine):
    compose = engine("launch").compose
    config = compose("experiment=label_smoothing", "debug=fast", "epochs=5")
    assert (config.name, config.epochs, config.limit_train_batches) == ("debug", 5, 2)
    assert config.loss["label_smoothing"] == 0.1


def test_an_unknown_preset_is_refused(train):
    done = train("debug=overfti")
    assert done.code == 2
    assert done.last == "There is no debug 'overfti'. Did you mean 'overfit'? Choices: fast, nan, overfit, profile."


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=[] if point in ("regression", "language_model") else [pytest.mark.thorough])
        for point in sorted(set(POINTS) - {"image_classification"})
    ],
)
def test_presets_fit_every_starting_point(render, server, tmp_path, point):
    project = render(tmp_path / "new", package_name="digits", starting_point=point)
    done = server.run(project / "train.py", "debug=overfit", "max_steps=2", "workers=0", "batch_size=8")
    assert done.code == 0, done.out
