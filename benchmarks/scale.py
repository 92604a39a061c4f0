"""Whether large numbers cost more than they should: classes, runs, keys, jobs, lines, groups, log points."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .common import Cost, Table, measure, project

SMALL = ("data=synthetic", "data.shape=[1,1,4]", "data.size=64", "data.classes=2", "batch_size=8", "workers=0")
TINY = (*SMALL, "model=mlp", "model.hidden=[2]", "device=cpu", "log.graph=false", "log.images=0")
QUIET = (*TINY, "logger=none", "log.curves=false", "max_steps=2")

JOBS = """
import json, os, sys, time
count, sys.argv = int(sys.argv[1]), ["train.py", *sys.argv[2:]]
from digits.engine.launch import launch

seen = []

def work(job):
    from digits.engine.train import train

    value = train(job)
    pages = int(open("/proc/self/statm").read().split()[1])
    seen.append((time.process_time(), pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))
    return value

assert launch(work) == 0
assert len(seen) == count
with open("jobs.json", "w") as file:
    json.dump(seen, file)
"""
"""A sweep that notes CPU time, memory and open files after each of its jobs."""


def tables(quick: bool) -> Iterator[Table]:
    yield _commands(quick)
    yield _jobs(quick)


def _run(name: str) -> Path:
    """Return the only run of this name."""
    (folder,) = (path for path in (project() / "runs" / name).iterdir() if path.name[0] != ".")
    return folder


def _trained(name: str, *overrides: str) -> Path:
    shutil.rmtree(project() / "runs" / name, ignore_errors=True)
    measure(["train.py", *QUIET, f"name={name}", *overrides])
    return _run(name)


def _classes(count: int) -> list[str]:
    run = _trained("classes", f"data.classes={count}", "data.size=4000")
    return ["-m", "digits", "evaluate", str(run)]


def _runs(count: int) -> list[str]:
    run = _trained("one")
    many = project() / "runs/many"
    shutil.rmtree(many, ignore_errors=True)
    config = (run / "config.yaml").read_text()
    for number in range(count):
        twin = shutil.copytree(run, many / str(number), ignore=shutil.ignore_patterns("checkpoints"))
        (twin / "config.yaml").write_text(config.replace("seed: 0\n", f"seed: {number}\n", 1))
    return ["-m", "digits", "compare", str(many), "--out", str(project() / "compare.png")]


def _keys(count: int) -> list[str]:
    lines = [f"  k{number}: {number}\n" for number in range(count)]
    path = project() / "configs/experiment/keys.yaml"
    path.write_text("# @package _global_\nvars:\n" + "".join(lines))
    return ["train.py", *QUIET, "name=keys", "experiment=keys"]


def _long_metrics(count: int) -> Path:
    """Return a run with so many log points, stopped after its last but one step."""
    run = _trained("lines")
    (row, *_) = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(1, count + 1):
            file.write(json.dumps({**row, "step": step}) + "\n")
    return run


def _lines(count: int) -> list[str]:
    return ["-m", "digits", "compare", str(_long_metrics(count)), "--out", str(project() / "compare.png")]


def _lines_drawn(count: int) -> list[str]:
    code = "import sys, pathlib; from digits.engine.tools.curves import draw_curves as draw; "
    return ["-c", code + "draw(pathlib.Path(sys.argv[1]), 'val/acc', None)", str(_long_metrics(count))]


def _groups(count: int) -> list[str]:
    names = [f"layers.{1 + 3 * layer}.{kind}" for layer in range(count // 2) for kind in ("weight", "bias")]
    groups = "".join(f"    - {{name: g{n}, match: '{name}', lr_scale: 0.5}}\n" for n, name in enumerate(names))
    options = [option for option in QUIET if not option.startswith("model.hidden")]
    hidden = ", ".join(["2"] * (count // 2 - 1))
    text = f"# @package _global_\nmodel:\n  hidden: [{hidden}]\noptimizer:\n  groups:\n{groups}"
    (project() / "configs/experiment/groups.yaml").write_text(text)
    return ["train.py", *options, "name=groups", "experiment=groups", "log.level=warning"]


def _points(count: int) -> list[str]:
    lengths = (f"max_steps={count}", f"epochs={count}", "val_every_epochs=0", "save_every_epochs=0", "log.every=1")
    return ["train.py", *TINY, *lengths, "name=points", "log.level=warning"]


CASES: dict[str, tuple[Callable[[int], list[str]], int]] = {
    "`evaluate` with classes": (_classes, 2_000),
    "`compare` of runs": (_runs, 2_000),
    "a run of two steps with keys in its config": (_keys, 5_000),
    "`compare` of a run with lines of `metrics.jsonl`": (_lines, 1_000_000),
    "`curves.png` of a run with lines of `metrics.jsonl`": (_lines_drawn, 1_000_000),
    "a run of two steps with parameter groups": (_groups, 5_000),
    "a run with `log.every=1` and steps": (_points, 100_000),
}
"""By name: what returns the command for a number, and the largest number."""


def _commands(quick: bool) -> Table:
    table = Table(
        "Large numbers",
        ["what", "how many", "CPU time", "peak memory", "CPU time of them to that of a quarter"],
        note="The last column leaves out the CPU time of a sixteenth, which is mostly that of the start. "
        "It is 5 if the time grows in proportion, and 17 if it grows with the square. –: a quarter takes no longer "
        "than a sixteenth.",
    )
    for name, (command, largest) in CASES.items():
        if quick and not name.startswith("`compare`"):  # it is the quickest command
            continue
        largest = max(64, largest // 100) if quick else largest
        sizes = (largest // 16, largest // 4, largest)
        least, middle, most = (_alone(command(size)) for size in sizes)
        first, second = middle.cpu - least.cpu, most.cpu - least.cpu
        grown = f"{second / first:.1f}×" if first > 0.05 * least.cpu else "–"
        cells = (f"{most.cpu:.1f} s", f"{most.peak / 2**20:.0f} MiB", grown)
        table.rows.append((name, f"{largest:,}", *cells))
    return table


def _alone(arguments: list[str]) -> Cost:
    return measure(arguments)[0]


def _jobs(quick: bool) -> Table:
    count = 10 if quick else 500
    table = Table(
        "A sweep of many short runs in one process",
        ["jobs", "CPU time of a job", "memory", "open files"],
        note="CPU time is the mean of the last ten jobs. The first job imports torch.",
    )
    overrides = (*QUIET, "name=jobs", "log.level=error")
    measure(["-c", JOBS, str(count), "-m", f"seed=range({count})", *overrides])
    seen = json.loads((project() / "jobs.json").read_text())
    for number in (count // 5, count // 2, count):
        (before, *_), (after, memory, files) = seen[max(0, number - 11)], seen[number - 1]
        each = (after - before) / min(10, number - 1)
        table.rows.append((f"{number}", f"{each * 1e3:.0f} ms", f"{memory / 2**20:.0f} MiB", f"{files}"))
    return table
