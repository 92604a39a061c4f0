"""Jobs of a sweep that differ only in their seed or fold are one setting: the best one has the best mean."""

import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest

FIRST, SECOND = {"seed=0": 0.9, "seed=1": 0.7}, {"seed=0": 0.85, "seed=1": 0.83}


@pytest.fixture
def reported(engine, capsys, monkeypatch):
    """`reported(jobs)`: the lines of a sweep's report. jobs: (overrides, result, exit code)."""
    outcomes = engine("run.outcomes")

    def reported(*jobs: tuple[str, dict, int], monitor: str = "val/acc", mode: str = "max") -> list[str]:
        config = SimpleNamespace(monitor=monitor, monitor_mode=mode)
        made = []
        for number, (overrides, result, code) in enumerate(jobs):
            outcome = outcomes.Outcome(overrides.split(), number, f"x_{number}", config, code=code)
            monkeypatch.setattr(outcome, "result", lambda result=result: result)
            made.append(outcome)
        outcomes.report_jobs(made)
        return capsys.readouterr().out.splitlines()

    return reported


def finished(best: float, last: float | None = None) -> dict:
    last = best if last is None else last
    return {"status": "finished", "run": "runs/x", "steps": 9, "best": best, "last": last}


def test_jobs_are_sorted_by_their_best_value(reported):
    jobs = [("lr=1", finished(0.5), 0), ("lr=2", {"status": "failed", "run": "runs/y"}, 1), ("lr=3", finished(0.7), 0)]
    lines = reported(*jobs)
    assert [line.split()[1] for line in lines[1:4]] == ["lr=3", "lr=1", "lr=2"]
    assert lines[-1] == "Best: job 2 with val/acc 0.7."
    assert [line.split()[1] for line in reported(*jobs, monitor="val/loss", mode="min")[1:4]] == [
        "lr=1",
        "lr=3",
        "lr=2",
    ]


@pytest.mark.parametrize("repeat", ["seed", "data.fold"])
def test_the_best_setting_is_that_of_the_best_mean(reported, repeat):
    """One run of the other setting is better than all: a lucky seed must not win."""
    settings = {"lr=1": FIRST, "lr=2": SECOND}
    jobs = [
        (f"{lr} {seed.replace('seed', repeat)} epochs=3", finished(value, value - 0.1), 0)
        for lr, seeds in settings.items()
        for seed, value in seeds.items()
    ]
    lines = reported(*jobs)
    assert [line.split()[1:3] for line in lines[1:3]] == [["lr=1", f"{repeat}=0"], ["lr=2", f"{repeat}=0"]]
    table = lines[lines.index("") + 1 : -1]
    assert table[0].split() == ["setting", "runs", "best", "last"]
    for line, (lr, seeds) in zip(table[1:], reversed(settings.items()), strict=True):
        values = list(seeds.values())
        spread = f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"
        last = f"{statistics.fmean(values) - 0.1:.4g} ± {statistics.stdev(values):.2g}"
        assert line.split() == [lr, "2", "of", "2", *spread.split(), *last.split()]
    assert lines[-1] == "Best: lr=2 with val/acc 0.84 ± 0.014 (mean ± standard deviation)."


def test_a_setting_says_how_many_of_its_runs_count(reported):
    failed = {"status": "failed", "run": "runs/y"}
    lines = reported(("lr=1 seed=0", finished(0.5), 0), ("lr=1 seed=1", failed, 1), ("lr=2 seed=0", failed, 1))
    assert [line.split() for line in lines[-3:-1]] == [["lr=1", "1", "of", "2", "0.5", "0.5"], ["lr=2", "0", "of", "1"]]
    assert lines[-1] == "Best: lr=1 with val/acc 0.5 (mean ± standard deviation)."


def test_a_sweep_over_seeds_alone_has_one_setting(reported):
    lines = reported(("seed=0", finished(0.5), 0), ("seed=1", finished(0.6), 0))
    assert lines[-1] == "Best: all with val/acc 0.55 ± 0.071 (mean ± standard deviation)."


def test_two_sweeps_that_began_in_the_same_second_keep_their_runs_apart(engine, tmp_path, monkeypatch):
    launch, folder, outcomes = engine("launch"), engine("run.folder"), engine("run.outcomes")
    monkeypatch.setattr(folder, "RUNS", tmp_path)
    config = engine("config.schema").Config(monitor_mode="min")
    monkeypatch.setattr(launch, "to_config", lambda composed: config)

    def work(job):
        manifest = {"status": "finished", "result": {"steps": 1, "last": float(job.overrides[0][3:])}}
        job.run = folder.create_run(job.config, manifest, job.folder_name)

    made = [outcomes.Outcome([override], 0, "2026_0") for override in ("lr=1.0", "lr=2.0")]
    for outcome in made:
        launch._do(work, None, outcome, told=[])
    assert [outcome.result()["last"] for outcome in made] == [1.0, 2.0]
    assert len(list((tmp_path / "default").iterdir())) == 2


def test_a_grid_over_seeds(train, workspace):
    done = train("-m", "seed=0,1", "lr=0.01,0.0001", "epochs=1", "logger=none", "log.level=error", "model=mlp")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["lr=0.01", "lr=0.0001"]
    assert lines[-1].startswith("Best: lr=0.01 with val/acc 0.")


def test_a_grid_that_was_stopped_goes_on(train, workspace):
    """Repeated with resume=auto, it takes the runs that are finished."""
    grid = ("-m", "lr=0.01,0.001", "epochs=1", "logger=none", "log.level=error", "model=mlp")
    assert train(*grid[2:], "lr=0.01").code == 0  # as if a kill had ended the grid after its first job
    done = train(*grid, "resume=auto")
    assert done.code == 0, done.out
    assert "is finished after" in done.out
    assert len(list(Path(workspace / "runs/default").glob("*/manifest.json"))) == 2
