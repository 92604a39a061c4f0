"""A stopped and resumed run is the run that was never stopped."""

import json

import pytest


def logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.parametrize("stops", [[1], [6], [3, 4, 11]])
def test_resume_is_exact(run, manifest, stops):
    whole = run("log.every=4")
    stopped = run("log.every=4", "name=stopped", stop_after=stops[0])
    assert manifest(stopped)["status"] == "stopped"
    for stop in [*stops[1:], None]:
        run(resume=stopped, stop_after=stop)
    assert manifest(stopped)["status"] == "finished"
    assert manifest(stopped)["result"] == manifest(whole)["result"]
    assert logged(stopped) == logged(whole)


def test_a_rerun_is_equal_and_another_seed_is_not(run, manifest):
    results = [manifest(run(f"seed={seed}"))["result"]["weights_sha256"] for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
