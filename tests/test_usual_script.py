"""docs/mistakes: each script goes wrong as the page shows, and a project does not."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.runs import rows, the_run
from helpers.snippets import add

FOLDER = Path(__file__).resolve().parents[1] / "docs/mistakes"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
SECTIONS = {re.search(r"\$ python (\w+\.py)", text)[1]: text for text in PAGE.split("\n## ")[1:]}
pytestmark = pytest.mark.xdist_group("mistakes")  # one worker trains the run that several tests look at

# ---------------------------------------------------------------- the scripts


def test_the_page_has_a_section_for_each_script():
    assert sorted(SECTIONS) == SCRIPTS
    assert PAGE.count("\n## ") == len(SCRIPTS)
    titles = re.findall(r"^## (\d+)\. (.*)$", PAGE, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \| (.*?) \|", PAGE, re.MULTILINE) == titles
    assert [int(number) for number, _ in titles] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_short_and_the_page_quotes_it(name):
    script = (FOLDER / name).read_text(encoding="utf-8")
    assert len(script.splitlines()) < 40
    assert "mistake" in script
    lines = [line.strip() for line in script.splitlines()]
    quotes = re.findall(r"```python\n(.*?)```", SECTIONS[name], re.DOTALL)
    assert quotes
    for quote in quotes:
        wanted = [line.strip() for line in quote.splitlines()]
        starts = range(len(lines) - len(wanted) + 1)
        assert any(lines[start : start + len(wanted)] == wanted for start in starts), quote


def assert_prints(out: str, wanted: str) -> None:
    """The words and whole numbers agree. Other numbers may differ a little on other machines."""
    found, expected = out.split(), wanted.split()
    is_fraction = re.compile(r"-?\d+\.\d+").fullmatch
    assert len(found) == len(expected), out
    for one, other in zip(found, expected, strict=True):
        if is_fraction(one) and is_fraction(other):
            assert float(one) == pytest.approx(float(other), rel=0.01, abs=0.002), out
        else:
            assert one == other, out


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_prints_what_the_page_shows(server, name):
    wanted = re.search(rf"\$ python {re.escape(name)}\n(.*?)```", SECTIONS[name], re.DOTALL)[1]
    done = server.run(FOLDER / name)
    for _ in range(4):  # the order of the event files is another one if a second ends between them
        if done.out.split() != wanted.split() and name == "closed_writer.py":
            done = server.run(FOLDER / name)
    assert done.code == 0, done.out
    assert_prints(done.out, wanted)


def test_another_number_would_be_noticed():
    assert_prints("loss 0.5001 of 3", "loss 0.500  of 3")
    for other in ("loss 0.52 of 3", "loss 0.5 of 4", "loss 0.5 of", "rate 0.5 of 3"):
        with pytest.raises(AssertionError):
            assert_prints(other, "loss 0.5 of 3")


# ---------------------------------------------------------------- the project

(GROUPS,) = re.findall(r"- (\{name: .*\})\n    - (\{name: .*\})\n", SECTIONS["first_group.py"])
STEPS = 24


@pytest.fixture(scope="module")
def trained(project, server, tmp_path_factory):
    """A project with a finished run of two epochs of twelve steps. Tests only read it."""
    workspace = shutil.copytree(project, tmp_path_factory.mktemp("usual") / "digits")
    add(workspace, "digits/usual.py")
    done = server.run(
        workspace / "train.py",
        "task._target_=.usual.Usual",
        "model=mlp",
        "model.dropout=0.5",
        f"optimizer.groups=[{','.join(GROUPS)}]",
        "scheduler.warmup_epochs=0",
        "epochs=2",
        "batch_size=100",
        "log.every=1",
        "log.curves=false",
    )
    assert done.code == 0, done.out
    return workspace


@pytest.fixture
def steps(trained):
    """The rows of metrics.jsonl that have training values: one for each step."""
    found = [row for row in rows(the_run(trained)) if "train/loss" in row]
    assert len(found) == STEPS
    return found


def scalars(folder: Path) -> dict[str, list[int]]:
    """The steps of each curve, in the order in which TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_start_opens_one_event_file(trained, server, tmp_path):
    workspace = shutil.copytree(trained, tmp_path / "digits")
    folder = the_run(workspace) / "tensorboard"
    for epochs in (2, 3):
        if epochs == 3:
            done = server.run(workspace / "train.py", f"resume={the_run(workspace)}", "epochs=3")
            assert done.code == 0, done.out
        assert len(list(folder.glob("events*"))) == epochs - 1
        assert scalars(folder)["train/loss"] == list(range(1, 12 * epochs + 1))


def test_numbers_are_curves_and_a_picture_among_them_is_refused(trained, server):
    curves = scalars(the_run(trained) / "tensorboard")
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "lr/head", "lr/body"} <= set(curves)
    done = server.run(trained / "train.py", "task._target_=.usual.Mapped", "name=refused")
    assert (done.code, (trained / "runs/refused").exists()) == (2, False)
    assert re.search(r"```console\n('loss_map'.*)\n", SECTIONS["image_of_a_number.py"])[1] in done.out


def test_means_are_over_samples_and_epochs_start_anew(trained, server, tmp_path, steps):
    losses = []
    for size in re.findall(r"evaluate RUN --batch-size (\d+)", SECTIONS["mean_of_batches.py"]):
        out = tmp_path / size
        arguments = ("evaluate", str(the_run(trained)), "--batch-size", size, "--out", str(out))
        done = server.run(trained / "digits/__main__.py", *arguments)
        assert done.code == 0, done.out
        assert "250 of 250 samples of the val split" in done.out  # the words of the page on the last batch
        assert "250 of 250 samples of the val split" in SECTIONS["last_batch.py"]
        losses.append(json.loads((out / "evaluate-val.json").read_text())["values"]["val/loss"])
    assert len(losses) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for epoch in (0, 1):
        of_epoch = steps[12 * epoch : 12 * epoch + 12]
        mean = sum(row["train/loss"] for row in of_epoch) / 12
        assert of_epoch[-1]["train_epoch/loss"] == pytest.approx(mean, rel=1e-5)


def test_gradients_do_not_add_up_over_steps(looped):
    """All steps take the same samples but one and hardly change the weights. So their gradients are alike."""
    loop = looped(
        "model=mlp", "data.shift=0", "batch_size=1296", "accumulate=2", "optimizer=sgd",
        "lr=1e-9", "epochs=4", "log.every=1", "log.grad_norm=true", "logger=none", "workers=0", "precision=fp32",
    )  # fmt: skip
    loop.fit()
    norms = [row["train/grad_norm"] for row in rows(loop.run.folder) if "train/grad_norm" in row]
    assert norms == pytest.approx([norms[0]] * 4, rel=0.05)
    assert norms[0] > 0.1


def test_a_resumed_run_ends_as_the_whole(trained, server, tmp_path):
    workspace = shutil.copytree(trained, tmp_path / "digits")
    (stops,) = re.findall(r"reproduce RUN --stop-at (\S+)", SECTIONS["bad_resume.py"])
    arguments = ("reproduce", str(the_run(workspace)), "--stop-at", stops)
    done = server.run(workspace / "digits/__main__.py", *arguments)
    assert done.code == 0, done.out
    assert f"identical: {STEPS} steps" in done.out


def test_each_group_has_its_rate_and_the_optimizer_steps_first(steps):
    """`lr/<group>` is the rate of the step, as torch's own schedule gives it after each step."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.003)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    for row in steps:
        (rate,) = scheduler.get_last_lr()
        assert row["lr/body"] == pytest.approx(rate, rel=1e-6)
        assert row["lr/head"] == pytest.approx(10 * rate, rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_the_mode_is_set_for_training_and_validation(trained, steps):
    assert {row["train/in_training_mode"] for row in steps} == {1}
    assert [row["val/in_training_mode"] for row in rows(the_run(trained)) if "val/loss" in row] == [0, 0]


def test_every_sample_of_every_epoch_has_its_own_draw(train, workspace):
    add(workspace, "digits/usual.py", "digits/data/drawn.py")
    command = ("data=.data.drawn.Drawn", "task._target_=.usual.Usual", "model=mlp", "batch_size=1", "epochs=3")
    draws = []
    for workers in ("0", "2"):
        name = f"with-{workers}"
        done = train(*command, "+data.own=false", f"workers={workers}", f"name={name}", "log.every=1", "logger=none")
        assert done.code == 0, done.out
        draws.append([row["train/draw"] for row in rows(the_run(workspace, name)) if "train/draw" in row])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == len(draws[0]) == 24
    done = train(*command, "+data.own=true", "name=own", "logger=none")
    assert (done.code, (workspace / "runs/own").exists()) == (2, False)
    assert "When it is read again, this differs: training sample" in done.out
