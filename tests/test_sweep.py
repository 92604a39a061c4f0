"""Grids and searches go on after a failed job. A table tells how each job ended."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import snippets

QUICK = ("epochs=1", "logger=none", "log.level=error", "model=mlp")
SEARCH = ("sweep=optuna", "hydra.sweeper.n_trials=3", *QUICK)


def results(out: str) -> list[dict[str, str]]:
    """The rows of the table at a sweep's end."""
    lines = iter(out.splitlines())
    head = next(line for line in lines if line.startswith("job  overrides"))
    starts = [match.start() for match in re.finditer(r"\w+", head)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    cells = [[line[a:b].strip() for a, b in spans] for line in lines if line[:1].isdigit()]
    return [dict(zip(head.split(), row, strict=True)) for row in cells]


def result(workspace: Path, row: dict[str, str]) -> dict[str, float]:
    """The result in the manifest of a row's run."""
    values: dict[str, float] = json.loads((workspace / row["run"] / "manifest.json").read_text())["result"]
    return values


def test_a_grid_ends_with_a_table(train, workspace):
    done = train("-m", "lr=0.01,0.001", *QUICK)
    assert done.code == 0, done.out
    rows = results(done.out)
    assert sorted(row["job"] for row in rows) == ["0", "1"]
    assert {row["overrides"] for row in rows} == {"lr=0.01", "lr=0.001"}  # what is the same in every job is left out
    for row in rows:
        values = result(workspace, row)
        assert row["run"].endswith(f"_{row['job']}")
        assert (row["status"], int(row["steps"])) == ("finished", values["steps"])
        assert float(row["best"]) == pytest.approx(values["best"], rel=1e-3)
        assert float(row["last"]) == pytest.approx(values["last"], rel=1e-3)
    best = max(rows, key=lambda row: float(row["best"]))
    assert done.last == f"Best: job {best['job']} with val/acc {best['best']}."
    assert len(list((workspace / "runs/default/.sweeps").glob("*/multirun.yaml"))) == 1


def test_a_failed_job_of_a_grid_has_its_row(train, workspace):
    task = workspace / "digits/task.py"
    text = task.read_text()
    line = "        images, labels = batch\n"
    assert line in text
    task.write_text(text.replace(line, f"{line}        images = images / (model.training is False or ctx.step != 5)\n"))
    done = train("-m", "max_steps=9,3", "monitor=val/acc,val/nothing", "monitor_mode=max", *QUICK)
    assert done.code == 76, done.out
    assert [(row["status"], bool(row["run"])) for row in results(done.out)] == [
        ("finished", True),  # the best job first, then those without a value
        ("not finite (76)", True),
        ("mistake (2)", False),
        ("mistake (2)", False),
    ]


def test_a_search_seeks_in_the_direction_of_the_monitor(train, workspace):
    done = train(*SEARCH)
    assert done.code == 0, done.out
    rows = results(done.out)
    assert len(rows) == 3
    assert len({row["overrides"].split()[0] for row in rows}) == 3
    best = max(result(workspace, row)["last"] for row in rows)
    (found,) = (workspace / "runs/default/.sweeps").glob("*/optimization_results.yaml")
    assert f"best_value: {best}" in found.read_text()

    # The same search again takes the runs that are finished, and goes on.
    more = train(*SEARCH[:1], "hydra.sweeper.n_trials=4", *QUICK, "resume=auto")
    assert more.code == 0, more.out
    first = {row["job"]: row["run"] for row in results(more.out) if row["job"] != "3"}
    assert first == {row["job"]: row["run"] for row in rows}
    assert len(list((workspace / "runs/default").glob("*/manifest.json"))) == 4

    lowest = train(*SEARCH, "name=low", "monitor=val/loss", "-m")
    assert lowest.code == 0, lowest.out
    best = min(result(workspace, row)["last"] for row in results(lowest.out))
    (found,) = (workspace / "runs/low/.sweeps").glob("*/optimization_results.yaml")
    assert f"best_value: {best}" in found.read_text()


def break_step(workspace: Path, step: int) -> None:
    """Make training fail in optimizer step `step`, counted from 0."""
    task = workspace / "digits/task.py"
    line = "        images, labels = batch\n"
    text = task.read_text()
    assert line in text
    task.write_text(text.replace(line, f"{line}        assert not (ctx.training and ctx.step == {step})\n"))


def test_a_failed_job_does_not_end_a_search(train, workspace):
    break_step(workspace, 2)
    done = train("sweep=optuna", "hydra.sweeper.n_trials=6", *QUICK, "max_steps=choice(2,3)")
    assert done.code == 1, done.out
    rows = results(done.out)
    ends = {"max_steps=2": "finished", "max_steps=3": "failed (1)"}
    assert len(rows) == 6
    assert {row["status"] for row in rows} == set(ends.values())
    for row in rows:
        (steps,) = [o for o in row["overrides"].split() if o.startswith("max_steps")]
        assert row["status"] == ends[steps]


def test_a_search_in_which_every_job_fails_says_so(train, workspace):
    break_step(workspace, 2)
    done = train(*SEARCH)
    assert done.code == 1, done.out
    assert "The sweep ended early: No trials are completed yet." in done.out
    assert [row["status"] for row in results(done.out)] == ["failed (1)"] * 3


def test_sweep_needs_no_line_in_train_yaml(workspace):
    """So projects that are older than sweeps have them after an update."""
    assert "sweep" not in (workspace / "configs/train.yaml").read_text()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["epochs=0"], "epochs=0"),
        (["lrr=1"], "Did you mean 'lr'?"),
        (["monitor_mode=up"], "monitor_mode=up"),
        (["hydra.sweeper.direction=minimize"], "Set it to maximize"),
        (["hydra.sweeper.n_trails=3"], "n_trails"),
        (["sweep=optun"], "Did you mean 'optuna'?"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes_are_found_before_the_first_job(train, workspace, overrides, named):
    done = train(*([] if overrides == ["sweep=optun"] else ["sweep=optuna"]), *overrides)
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1
    assert named in done.out
    assert not (workspace / "runs").exists()


def test_a_mistake_of_all_jobs_is_told_once_and_counted(train, workspace):
    done = train("-m", "lr=0.1,0.01,0.001", "data=image_folder", "data.root=nowhere", *QUICK)
    assert done.code == 2, done.out
    first, last = done.out.strip().splitlines()
    assert first.endswith("nowhere does not exist. Set data.root=PATH.")
    assert last == f"3 of 3 jobs ended with this mistake: {first}"


def test_a_missing_plugin_is_said_with_how_to_install_it(train, workspace):
    (workspace / "hydra_plugins").mkdir()
    (workspace / "hydra_plugins/__init__.py").touch()  # hides the packages that are installed
    done = train("sweep=optuna")
    assert done.code == 2
    assert len(done.out.strip().splitlines()) == 1
    assert done.last.endswith("Install it: uv add hydra-optuna-sweeper")


def test_a_signal_stops_a_sweep_after_its_first_job_too(train, workspace):
    (workspace / "digits/counting.py").write_text(
        "import os, signal\nfrom .task import Classification\n\nCALLS = []\n\n"
        "class Counting(Classification):\n    def training_step(self, model, batch, ctx):\n"
        "        if ctx.training and ctx.step == 4:  # once in each job\n"
        "            CALLS.append(ctx.step)\n"
        "            if len(CALLS) == 2:\n                os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return super().training_step(model, batch, ctx)\n"
    )
    options = ("task._target_=.counting.Counting", "logger=none", "max_steps=10", "epochs=1")
    assert train("-m", "seed=0,1,2", *options).code == 75
    manifests = sorted((workspace / "runs/default").glob("2*/manifest.json"))
    assert [json.loads(path.read_text())["status"] for path in manifests] == ["finished", "stopped"]


def test_a_sweep_keeps_little_of_each_job(project):
    """Memory for thousands of jobs in one process: a few hundred objects each, and no config twice."""
    overrides = ("-m", "name=kept", "seed=range(0,6)", "data=synthetic", "data.shape=[1,2,2]", "data.size=64")
    quiet = ("model=mlp", "max_steps=1", "logger=none", "log.curves=false", "log.graph=false", "log.images=0")
    done = subprocess.run(
        [sys.executable, "-c", snippets.text("count_objects.py"), *overrides, *quiet],
        cwd=project,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    numbers = list(map(int, done.stderr.splitlines()[-1].split()))
    counts, filters = numbers[:6], numbers[6:]
    assert counts[5] - counts[3] < 2 * 200, counts
    assert filters[5] == filters[3], filters
