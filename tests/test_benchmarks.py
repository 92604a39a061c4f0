"""The benchmarks run and fill their tables. Speed itself is not tested."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.template import ROOT

from benchmarks.workers import Worker, in_turns

pytestmark = pytest.mark.xdist_group("benchmarks")  # one worker measures for all


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "benchmarks.md"
    done = benchmark("groups", "gpu", "data", "--quick", "--out", str(path))
    assert done.returncode == 0, done.stderr
    return path


def table(text: str, title: str) -> dict[str, list[str]]:
    """The cells of the table below a heading, by the first of each row."""
    part = text.split(f"### {title}", 1)[1].split("\n### ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}


def ratio(cell: str) -> float:
    assert re.fullmatch(r"[\d.]+×", cell), cell
    return float(cell[:-1])


def test_a_table_has_a_row_for_each_contestant_with_numbers_in_it(page: Path) -> None:
    text = page.read_text()
    groups = table(text, "Many parameter groups")
    assert list(groups) == ["1", "50", "150"]
    assert all(ratio(cells[2]) > 0 and ratio(cells[5]) > 0 for cells in groups.values())
    pictures = table(text, "2,000 pictures")
    assert ratio(next(cells[1] for name, cells in pictures.items() if name.startswith("DataLoader"))) == 1
    assert ratio(pictures["ours"][1]) > 0
    assert "ours, `data.in_memory=true`" in table(text, "A folder of 256 JPEG files")
    boxes = table(text, "A folder of 128 JPEG files of 500×375")
    decibels = {name: int(cells[-1].split()[0]) for name, cells in boxes.items() if "dB" in cells[-1]}
    assert decibels["ours, `data.augment=[RandomResizedCrop]`"] >= 50, "practically the same pixels"
    assert decibels["ours, `data.cache=PATH`"] > 25


def test_a_plot_lies_beside_the_page(page: Path) -> None:
    pictures = re.findall(r"!\[.*\]\((.*)\)", page.read_text())
    assert len(pictures) == 4
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_the_page_says_on_what_machine_and_how(page: Path) -> None:
    head = page.read_text().split("### ")[0]
    assert re.search(r"Measured on .* torch [\d.]+.*; \d{4}-\d\d-\d\d", head)
    assert "python -m benchmarks" in head


def test_without_results_the_page_says_what_was_not_run(page: Path) -> None:
    assert "**Not yet run on a GPU.**" in page.read_text()


def test_results_of_another_machine_name_that_machine(tmp_path: Path) -> None:
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    results.write_text('{"seconds": 0, "part": "Machine", "cells": {"machine": "16 × Xeon, H200"}}')
    done = benchmark("gpu", "--results", str(results), "--out", str(page))
    assert done.returncode == 0, done.stderr
    section = page.read_text().split("\n## ")[1]
    assert "| 16 × Xeon, H200 |" in section
    assert "Measured on" not in section


def test_a_page_keeps_the_sections_that_are_not_measured_anew(page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    text = page.read_text().replace("150 tensors", "151 tensors").replace("Not yet run", "Not run")
    copy.write_text(text)
    assert benchmark("gpu", "--quick", "--out", str(copy)).returncode == 0
    assert "151 tensors" in copy.read_text()
    assert "Not run" not in copy.read_text()
    assert copy.read_text().count("\n## ") == 3


def test_contestants_keep_the_path_of_python(monkeypatch, tmp_path) -> None:
    given = {}

    def start(command, env, **options):
        given.update(env)
        raise RuntimeError("seen enough")

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr("benchmarks.workers.project", lambda: tmp_path)
    monkeypatch.setattr("benchmarks.workers.subprocess.Popen", start)
    with pytest.raises(RuntimeError, match="seen enough"):
        Worker("bare", "bare", {})
    assert given["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(tmp_path), "/elsewhere"]


def test_contestants_take_turns_and_one_that_fails_is_named() -> None:
    settings = {"inputs": 4, "hidden": [4], "batch": 4, "steps": 5, "margin": 1, "device": "cpu"}
    workers = [Worker("bare", "bare", settings), Worker("ours", "ours", settings), Worker("none", "absent", settings)]
    answers, failed = in_turns(workers, rounds=3)
    assert {name: len(turns) for name, turns in answers.items()} == {"bare": 3, "ours": 3}
    assert all(wall > 0 and cpu > 0 for turns in answers.values() for wall, cpu, _ in turns)
    assert "absent" in failed["none"]
    assert all(worker.process.returncode is not None for worker in workers)


def test_turns_end_early_and_a_contestant_that_hangs_is_left() -> None:
    settings = {"inputs": 4, "hidden": [4], "batch": 4, "steps": 5, "device": "cpu"}
    answers, failed = in_turns([Worker("bare", "bare", settings)], rounds=3, is_late=lambda: True)
    assert (len(answers["bare"]), failed) == (1, {})
    worker = Worker("bare", "bare", settings)
    assert in_turns([worker], rounds=3, limit=0.001) == ({}, {"bare": "no answer within 0.001 s"})
    assert worker.process.returncode is not None


def test_the_error_of_a_contestant_is_named_though_advice_follows(monkeypatch, tmp_path) -> None:
    peers = tmp_path / "benchmarks/peers"
    peers.mkdir(parents=True)
    for package in (peers, peers.parent):
        (package / "__init__.py").touch()
    told = "Traceback:\ntorch.CompileError: no compiler\n\nSet TORCH_LOGS for more.\n"
    (peers / "loud.py").write_text(f"import sys\nsys.exit({told!r})")
    monkeypatch.setattr("benchmarks.workers.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.workers.project", lambda: tmp_path)
    assert in_turns([Worker("loud", "loud", {})], rounds=1)[1] == {"loud": "torch.CompileError: no compiler"}
