"""Fixtures: render the working tree and run commands in what was rendered, offline and without trust."""

import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import copier
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers and all that they start share the cores
pytest.register_assert_rewrite("helpers")  # before they are imported, so that their assertions show values

from helpers import releases, snippets  # noqa: E402
from helpers.forkserver import Command, Result, Server  # noqa: E402
from helpers.machine import ON_GPU  # noqa: E402
from helpers.once import named_after, once, shared_folder  # noqa: E402
from helpers.template import ROOT, working_tree  # noqa: E402

if TYPE_CHECKING:
    from helpers.updating import Versions


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runs", type=int, default=7, help="how many runs test_chaos.py stops, kills and damages")
    parser.addoption("--damages", type=int, default=15, help="how many run folders shared_runs/ damages")
    parser.addoption("--commands", type=int, default=24, help="how many command lines test_overrides.py draws")
    parser.addoption("--failures", type=int, default=5, help="how many file operations of a command fail; 0: all")
    parser.addoption("--stops", type=int, default=8, help="how many signals come at each moment of test_stops.py")
    parser.addoption("--edits", type=int, default=8, help="how many owners test_edits.py lets edit and update")

    parser.addoption("--thorough", action="store_true", help="run the tests that are left out to save time, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("thorough"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="runs with --thorough"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree. It is no git checkout, so Copier makes no clone. Tests only read it."""

    def copy(folder: Path) -> None:
        for path in working_tree():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)

    return once(shared_folder(tmp_path_factory) / "template", copy)


@pytest.fixture(scope="session")
def render_anew(template: Path) -> Callable[..., Path]:
    """`render_anew(dst, **answers)` lets Copier render a project into `dst`; other questions take their default."""

    def render_anew(dst: Path, source: Path = template, **answers: object) -> Path:
        copier.run_copy(
            str(source),
            dst,
            data=answers,
            defaults=True,
            quiet=True,
            settings=copier.Settings(),  # not those of whoever runs the tests
            unsafe=False,
            vcs_ref="HEAD",
        )
        return dst

    return render_anew


@pytest.fixture(scope="session")
def render(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`render(dst, **answers)`: as `render_anew`, but a project with the same answers is copied."""
    kept = shared_folder(tmp_path_factory) / "rendered"

    def make(answers: dict[str, object], to: Path) -> None:
        if "RENDERED" in os.environ:  # a machine with a GPU, on which the updater is not
            copier.run_copy(str(template), to, data=answers)
            return
        from ostinato.render import rendered

        rendered(str(template), "HEAD", answers, to)

    def render(dst: Path, **answers: object) -> Path:
        made = once(kept / named_after(sorted(answers.items())), partial(make, answers))
        return Path(shutil.copytree(made, dst, symlinks=True))

    return render


@pytest.fixture(scope="session")
def project(render: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered project called `digits`, with default answers otherwise. Tests only read it."""
    return render(tmp_path_factory.mktemp("projects") / "digits", project_name="Digits", package_name="digits")


@pytest.fixture(scope="session")
def repository(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the template: every release, then the working tree. Tests only read it."""
    folder = shared_folder(tmp_path_factory) / "repository"
    return once(folder, lambda to: releases.repository(to / "ostinato", template)) / "ostinato"


@pytest.fixture(scope="session")
def all_versions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> "Versions":
    """The releases and the working tree, rendered with given answers. Tests only read them."""
    from helpers.updating import Versions

    return Versions(repository, shared_folder(tmp_path_factory) / "versions")


@pytest.fixture(scope="session")
def scaffold(all_versions: "Versions") -> Callable[..., Path]:
    """`scaffold(version, **answers)`: a project of that version. Tests only read it."""
    return lambda version, **answers: all_versions.get(version, answers)[0]


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all type checks. They run on one worker, so that torch's types are read once."""
    return tmp_path_factory.getbasetemp().parent / "mypy"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("commands"))
    yield server
    server.close()


@pytest.fixture
def workspace(project: Path, tmp_path: Path) -> Path:
    """The test's own copy of the rendered project."""
    return shutil.copytree(project, tmp_path / "digits", ignore=shutil.ignore_patterns("runs"))


def undrawn(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Add log.curves=false to a run without loggers. Drawing takes half of the time of a short run."""
    is_asked = any(override.startswith("log.curves=") for override in overrides)
    return overrides if is_asked or "logger=none" not in overrides else (*overrides, "log.curves=false")


@pytest.fixture
def train(server: Server, workspace: Path) -> Callable[..., Result]:
    """`train(*overrides)`: the result of `python train.py *overrides` in the test's own project."""

    def train(*overrides: str, cwd: Path | None = None, **env: str) -> Result:
        return server.run(workspace / "train.py", *undrawn(overrides), cwd=cwd, **env)

    return train


@pytest.fixture
def train_together(server: Server, workspace: Path) -> Callable[..., Result]:
    """`train` in two processes. test_processes.py and test_stops.py test what torchrun itself does."""
    return lambda *overrides, **env: server.run_together(workspace / "train.py", *undrawn(overrides), **env)


@pytest.fixture
def start(server: Server, workspace: Path) -> Callable[..., Command]:
    """`train` that does not wait for the end."""

    def start(*overrides: str, **env: str) -> Command:
        return server.start(workspace / "train.py", *undrawn(overrides), **env)

    return start


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """An image folder of three kinds of grey shapes in many sizes. It has no validation folder."""
    from PIL import Image, ImageDraw

    root = tmp_path / "my pictures"
    for place, kind in enumerate(("cross", "disc", "方块")):
        (root / kind).mkdir(parents=True)
        for number in range(40):
            side = 20 + (number * 7 + place) % 11
            image = Image.new("L", (side, side + number % 3), 20 + number)
            draw, box = ImageDraw.Draw(image), (4, 4, side - 5, side - 5)
            if kind == "cross":
                draw.line((box[0], box[1], box[2], box[3]), fill=220, width=3)
                draw.line((box[0], box[3], box[2], box[1]), fill=220, width=3)
            elif kind == "disc":
                draw.ellipse(box, fill=220)
            else:
                draw.rectangle(box, outline=220, width=2)
            image.save(root / kind / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def engine(project: Path) -> Callable[[str], ModuleType]:
    """`engine("build.optimizer")`: a module of the rendered project's engine, imported into this process."""
    sys.path.insert(0, str(project))
    return lambda name: importlib.import_module(f"digits.engine.{name}")


@pytest.fixture
def load(engine) -> Callable[[Path], dict]:
    """`load(path)`: the state in a checkpoint."""
    return engine("run.checkpoint").load


@pytest.fixture
def looped(engine, project, tmp_path, monkeypatch):
    """`looped(*overrides)`: a Loop over built parts that has not begun, in this process."""
    monkeypatch.chdir(project)
    launch, setup, loop, folder, facts = map(engine, ("launch", "setup", "loop", "run.folder", "run.facts"))
    monkeypatch.setattr(folder, "RUNS", tmp_path)

    def looped(*overrides):
        config = launch.compose("log.level=error", "device=cpu", *overrides)
        parts = setup.build_parts(config)
        run = folder.create_run(config, {**facts.describe_start([]), "fingerprint": parts.fingerprint}, None)
        return loop.Loop(parts, run, time.monotonic())

    yield looped
    import torch

    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run_watched(train: Callable[..., Result], workspace: Path) -> Callable[..., str]:
    """`run_watched(name, *overrides)`: the output of a run that notes its batches; `at` and `by` stop it."""
    snippets.add(workspace, "digits/watched.py")

    def run_watched(name: str, *overrides: str, at: int | None = None, by: str = "", code: int = 0) -> str:
        env = {"BATCHES": str(workspace / f"{name}.batches"), "AT": "" if at is None else str(at), "WITH": by}
        done = train(*overrides, f"name={name}", **env)
        assert done.code == code, (name, overrides, at, by, done.out)
        assert "Traceback" not in done.out, done.out
        return done.out

    return run_watched


@pytest.fixture(params=["cpu", ON_GPU])
def device(request: pytest.FixtureRequest) -> str:
    """Each kind of device; a GPU only where there is one."""
    return request.param


@pytest.fixture
def looped_on_device(looped, device):
    """`looped` on each device, in the precision that is exact, without a logger."""
    return lambda *overrides: looped("logger=none", f"device={device}", "precision=fp32", *overrides)


@pytest.fixture
def windows(engine: Callable[[str], ModuleType]) -> ModuleType:
    """The module of the engine that keeps statistics over windows of steps."""
    return engine("log.statistics")


@pytest.fixture
def stopping(workspace) -> tuple[str, ...]:
    snippets.add(workspace, "digits/stopping.py")
    return ("task._target_=.stopping.Stopping", "epochs=3", "log.every=6", "save_every_steps=4")
