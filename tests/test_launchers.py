"""Sweeps whose jobs a launcher of Hydra starts: each job trains as it does alone, and one table tells all."""

import json
import signal
from itertools import pairwise

import pytest
from helpers import snippets
from helpers.launched import TASK, notes, wait_for_step
from helpers.runs import result, the_run

SMALL = (TASK, "model=mlp", "model.hidden=[8]", "max_steps=8", "logger=none", "workers=0")
JOBLIB = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", *SMALL)
QUIET = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def launched(workspace):
    snippets.add(workspace, "digits/launched.py")


def table(out: str) -> dict[str, tuple[str, str]]:
    """The status and the run of each job, by its last override."""
    rows = [line.split("  ") for line in out.splitlines() if line[:1].isdigit()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {c[1].split()[-1]: (c[2], c[-1] if c[-1].startswith("runs/") else "") for c in cells}


def test_jobs_of_joblib_train_as_alone_and_share_no_gpu(train, workspace, tmp_path):
    ends = "task.ends=ok,fail,kill,fine"
    done = train(*JOBLIB, ends, NOTES=str(tmp_path), CUDA_VISIBLE_DEVICES="3,5", **QUIET)
    assert done.code == 137, done.out
    rows = table(done.out)
    statuses = {ends.removeprefix("task.ends="): status for ends, (status, _) in rows.items()}
    assert statuses == {"ok": "finished", "fail": "failed (1)", "kill": "killed (137)", "fine": "finished"}
    assert all((workspace / run / "manifest.json").exists() for _, run in rows.values())

    jobs: dict[int, list[dict]] = {}
    for note in notes(tmp_path):
        jobs.setdefault(note["job"], []).append(note)
    spans = sorted((job[0]["gpu"], job[0]["time"], job[-1]["time"]) for job in jobs.values())
    assert [gpu for gpu, *_ in spans] in (["3", "3", "5", "5"], ["3", "5", "5", "5"], ["3", "3", "3", "5"])
    for (one, _, end), (other, begin, _) in pairwise(spans):
        assert one != other or end < begin, "two jobs had one GPU at a time"

    assert train(*SMALL, "task.ends=ok", "name=alone", **QUIET).code == 0
    assert result(workspace / rows["task.ends=ok"][1]) == result(the_run(workspace, "alone"))


def test_ctrl_c_saves_all_jobs(start, train, workspace, tmp_path):
    options = ("hydra.launcher.n_jobs=2", *SMALL, "seed=0,1,2", "task.ends=wait")
    sweep = start(*JOBLIB[:2], *options, NOTES=str(tmp_path), **QUIET)
    wait_for_step(tmp_path, 5, sweep.log.read_text, jobs=2)
    sweep.send(signal.SIGINT)
    done = sweep.result()
    assert done.code == 75, done.out
    rows = table(done.out)
    assert sorted(status for status, _ in rows.values()) == ["stopped (75)"] * 3
    (seed, run), *_ = [(seed, run) for seed, (_, run) in rows.items() if run]
    assert sum(bool(run) for _, run in rows.values()) == 2  # the third had not begun
    assert train(f"resume={run}", **QUIET).code == 0
    assert train(*SMALL, seed, "name=alone", **QUIET).code == 0
    assert result(workspace / run) == result(the_run(workspace, "alone"))


def test_submitit_starts_a_stopped_job_again(train, workspace, tmp_path):
    options = ("-m", "hydra/launcher=submitit_local", *SMALL, "task.ends=again,ok")
    done = train(*options, NOTES=str(tmp_path), **QUIET)
    assert done.code == 0, done.out
    rows = table(done.out)
    assert [status for status, _ in rows.values()] == ["finished"] * 2
    again, whole = (workspace / rows[f"task.ends={ends}"][1] for ends in ("again", "ok"))
    assert result(again)["weights_sha256"] == result(whole)["weights_sha256"]
    (resumed,) = json.loads((again / "manifest.json").read_text())["resumed"]
    assert resumed["step"] == 6


def test_the_name_of_a_job_on_a_cluster(train):
    """By default, Hydra takes that of the module which does the jobs."""
    assert "name: sweep" in train("--cfg", "hydra", "-p", "hydra.job").out.splitlines()


def test_a_launcher_does_dry_runs(train, workspace):
    done = train(*JOBLIB, "dry_run=true", "lr=0.1", **QUIET)
    assert done.code == 0, done.out
    assert "ended early" not in done.out
    assert (workspace / "runs/default/dry_run_0.png").exists()
    assert list((workspace / "runs/default").glob("2*")) == []


def test_a_missing_launcher_is_said_with_how_to_install_it(train, workspace):
    done = train("-m", "hydra/launcher=rq", "lr=0.1")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert done.last.endswith("Install it: uv add hydra-rq-launcher")


def test_a_run_that_is_not_there(train, workspace):
    done = train(*JOBLIB, "resume=runs/nope", "task.ends=ok,fine", **QUIET)
    assert done.code == 2, done.out
    assert set(done.out.splitlines()) <= {"resume=runs/nope is not a run. Name a run folder.", ""}
