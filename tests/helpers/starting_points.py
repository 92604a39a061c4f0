"""What holds for every starting point: the same checks, told apart by a `Point`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.forkserver import Result, Server
from helpers.runs import result, rows, the_run


def render_point(render: Callable[..., Path], folder: Path, point: str) -> Path:
    """A project called `digits` that starts with `point`."""
    return render(folder, project_name="Digits", package_name="digits", starting_point=point)


@dataclass(frozen=True)
class Point:
    """A rendered project, and overrides for a short run of two epochs with a batch size that 8 divides."""

    project: Path
    server: Server
    short: tuple[str, ...]

    def train(self, *overrides: str) -> Result:
        return self.server.run(self.project / "train.py", "logger=none", "log.curves=false", *overrides)

    def tool(self, *arguments: object) -> Result:
        return self.server.run(self.project / "digits/__main__.py", *map(str, arguments), cwd=self.project)

    def run(self, name: str) -> Path:
        return the_run(self.project, name)

    def default_run(self, *overrides: str) -> Path:
        """The run of `python train.py`, made here, with all that it shows."""
        done = self.server.run(self.project / "train.py", *overrides)
        assert done.code == 0, done.out
        assert "shown:" not in done.out, "neither pictures nor the graph failed"
        return self.run("default")

    def assert_small(self, lines: dict[str, int]) -> None:
        """Each of these files of the example has at most so many lines."""
        for name, most in lines.items():
            assert len((self.project / "digits" / name).read_text().splitlines()) <= most, name

    def assert_exact(self) -> None:
        """A run that is killed and stopped on the way, with and without workers, ends as the whole run."""
        windows = "log.windows=[{source: loss, name: most, statistic: max, window: 3}]"
        options = ("accumulate=4", "workers=0", "save_every_steps=3", "log.every=2", windows)
        done = self.train(*self.short, "name=exact", *options)
        assert done.code == 0, done.out
        done = self.tool("reproduce", self.run("exact"), "--stop-at", "4,7", "--workers", "2")
        assert done.code == 0, done.out
        assert done.last.startswith("identical")

    def assert_equal_in_parts(self) -> None:
        """One batch, four micro-batches, and four on each of two processes give equal gradients, up to rounding."""
        runs = []
        for name, overrides in {"one": (), "four": ("accumulate=4",)}.items():
            done = self.train(*self.short, *overrides, f"name={name}", "log.every=1")
            assert done.code == 0, done.out
            runs.append(self.run(name))
        shared = self.server.run_together(
            self.project / "train.py", *self.short, "accumulate=4", "logger=none", "log.every=1", "name=two"
        )
        assert shared.code == 0, shared.out
        runs.append(self.run("two"))
        values = [[row for row in rows(run) if "train/loss" in row or "val/loss" in row] for run in runs]
        for several in values[1:]:
            for a, b in zip(values[0], several, strict=True):
                assert a.keys() == b.keys()
                for key in (k for k in a if not k.startswith("time/")):
                    assert abs(a[key] - b[key]) <= 1e-4 * abs(a[key]), (a["step"], key, a[key], b[key])

    def assert_tools_work(self, name: str, files: Path, columns: list[str], count: int) -> list[dict]:
        """Evaluate, predict, export and compare the run `name`. Return the predictions for `files`."""
        run = self.run(name)
        done = self.tool("evaluate", run, "--checkpoint", "last")
        assert done.code == 0, done.out
        found = json.loads((run / "evaluate-val.json").read_text())["values"]
        last = [row for row in rows(run) if "val/loss" in row][-1]
        assert found == {key: value for key, value in last.items() if key.startswith("val/")}
        done = self.tool("export", run, "--format", "torch,safetensors,onnx")
        assert done.code == 0, done.out
        done = self.tool("compare", run.parent)
        assert done.code == 0, done.out
        assert result(run)["weights_sha256"][:12] in done.out
        out = run / "said.jsonl"
        done = self.tool("predict", run, files, "--out", out)
        assert done.code == 0, done.out
        said = [json.loads(line) for line in out.read_text().splitlines()]
        assert [list(row) for row in said] == [columns] * count
        return said


def point_fixture(name: str, *short: str) -> Callable[..., Point]:
    """A module's fixture `point`: a project that starts with `name`."""

    @pytest.fixture(scope="module")
    def point(render: Callable[..., Path], server: Server, tmp_path_factory: pytest.TempPathFactory) -> Point:
        return Point(render_point(render, tmp_path_factory.mktemp(name) / "p", name), server, short)

    return point


def shown(folder: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    """What TensorBoard has of a run: how many pictures by tag, and the texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    texts = {
        tag.removesuffix("/text_summary"): [e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }
    return {tag: len(events.Images(tag)) for tag in events.Tags()["images"]}, texts


def assert_nothing_of_others(project: Path, files: set[str]) -> None:
    """The folders that a starting point fills hold `files` and nothing else."""
    folders = ("configs/data", "configs/model", "configs/mix", "configs/experiment", "digits/data", "digits/models")
    there = {
        str(path.relative_to(project))
        for folder in folders
        for path in (project / folder).glob("*.*")
        if path.name != "__init__.py"
    }
    assert there == files
