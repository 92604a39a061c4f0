"""Overrides and whole command lines drawn at random: each does what it says, or is refused in one sentence.

Every run of the tests draws the same cases. For others, and more:

    OVERRIDES_SEED=7 OVERRIDES_CASES=1000 uv run pytest tests/test_overrides.py
    uv run pytest tests/test_overrides.py --commands 3000 -k any_command
"""

import operator
import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import Command, Draw, meant
from helpers.forkserver import Result, Server
from helpers.overrides import keys_of_choices, overrides, schema
from hypothesis import HealthCheck, Phase, given, seed, settings

SEED = int(os.environ.get("OVERRIDES_SEED", "0"))

CASES = int(os.environ.get("OVERRIDES_CASES", "150"))

TO_TYPE = re.compile(r"(Go on with|Install it): \S+ [^ ]+ \S+$")
"""A sentence may end with a command to type."""

CHUNKS = 10
"""Parts that can run beside each other."""

PREPARE = """
import sys
sys.path.insert(0, {project!r})
import digits.data.digits, digits.engine.datasets.image_folder, digits.engine.datasets.synthetic
import digits.engine.loggers, digits.engine.config.sweep, digits.engine.tools.dry_run, digits.engine.train
digits.engine.launch.compose()  # Hydra looks for its plugins and warms its parser
"""


class Project:
    """A rendered project that has an old run and pictures, and what `train.py` does in it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.files = self.found()

    def found(self) -> dict[Path, object]:
        """Every folder, and every file with its size and time of change; compiled Python aside."""
        paths = [path for path in self.folder.rglob("*") if "__pycache__" not in path.parts]
        return {p: p.is_file() and (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}

    def train(self, *overrides: str) -> Result:
        return self.server.run(self.folder / "train.py", *overrides)

    def check(self, overrides: list[str]) -> bool:
        """True if the overrides plan a run. Fail if they neither plan one nor are refused in one sentence."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)  # of a case that failed
        done = self.train(*overrides, "dry_run=true")
        assert "Traceback" not in done.out, done.out
        assert done.code in (0, 2), f"exit code {done.code}:\n{done.out}"
        runs = self.folder / "runs"
        if done.code == 0:
            assert "\nsteps   " in f"\n{done.out}", done.out
            assert "Leave dry_run out to train." in done.last, done.out
            assert {path.name for path in runs.rglob("*") if path.is_file()} == {"dry_run.png"}
            shutil.rmtree(runs)
        else:
            self.is_refused(done, overrides)
            if "failed on the first batch" not in done.out:  # what only training itself would find
                self.is_refused(self.train(*overrides), overrides)
        assert self.found() == self.files
        return done.code == 0

    def obey(self, command: Command) -> Result:
        """Run a command. It must do something, or say in one sentence why it cannot."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        done = self.server.run(self.folder / command.script, *command.arguments, cwd=self.folder)
        told = f"{command} ended with {done.code}:\n{done.out[-3000:]}"
        now = self.found()
        new, changed = now.keys() - self.files.keys(), {p for p in self.files if now.get(p) != self.files[p]}
        for path in sorted(new, reverse=True):  # an output that was asked for
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.files = self.found()  # of a folder, nothing but its time has changed
        assert not {path for path in changed if path.is_file()}, told
        assert "Traceback" not in done.out, told
        assert done.code in (0, 2), told
        if done.code == 2:
            assert not {path for path in new if path.is_file()}, told
            assert done.last.endswith((".", "?", '".')) or TO_TYPE.search(done.last), told
            assert len(done.last) < 1500, told
        return done

    def is_refused(self, done: Result, overrides: list[str]) -> None:
        assert done.code == 2, f"exit code {done.code}:\n{done.out}"
        *before, last = done.out.removesuffix("\n").split("\n")
        for line in before:  # what init_from found, warnings of torch, and keys that are given twice
            known = "Warning: " in line or " is given twice. " in line
            assert known or line.startswith(("init_from=", "  ")), done.out
        assert last.endswith((".", "?", '".')), done.out
        assert len(last) < 800 + 2 * len(" ".join(overrides)), done.out
        assert not (self.folder / "runs").exists(), done.out


@pytest.fixture(scope="module")
def project_with_a_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("overrides") / "digits"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("runs"))
    for number in range(24):
        path = folder / f"pictures/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 8 + number % 3), 10 * number).save(path)
    server = Server(tmp_path_factory.mktemp("commands"), PREPARE.format(project=str(folder)))
    made = server.run(folder / "train.py", "max_steps=1", "logger=none", "model.width=4")
    assert made.code == 0, made.out
    (run,) = (folder / "runs/default").iterdir()
    (folder / "kept").mkdir()
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"stopped"'))
    run.rename(folder / "kept/old")
    shutil.rmtree(folder / "runs")
    for name, content in (("empty", b""), ("binary", bytes(range(256))), ("list", b"[1]")):
        (folder / "kept" / name).mkdir()
        for file in ("config.yaml", "manifest.json"):
            (folder / "kept" / name / file).write_bytes(content)
        (folder / "kept" / name / ".lock").touch()
    # A case that asks for too much is told so on every machine, and one that never ends is killed.
    resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (6 << 30, 6 << 30))
    resource.prlimit(server.process.pid, resource.RLIMIT_CPU, (120, 120))
    yield Project(folder, server)
    server.close()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_overrides(project_with_a_run, engine, chunk):
    defaults = schema(engine("config.schema"))
    keys = [*defaults, *keys_of_choices(project_with_a_run.folder)]
    plans = []

    @seed(SEED * CHUNKS + chunk)
    @settings(
        max_examples=CASES // CHUNKS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(overrides(defaults, keys))
    def every_case(case: list[str]) -> None:
        plans.append(project_with_a_run.check(case))

    every_case()
    assert len(plans) >= CASES // CHUNKS
    assert 0.3 < sum(plans) / len(plans) < 0.9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("commands")))


def test_any_command(project_with_a_run, engine, number):
    rules = engine("config.schema")
    draw = Draw(SEED * 10**6 + number, schema(rules), keys_of_choices(project_with_a_run.folder))
    command = draw.command()
    done = project_with_a_run.obey(command)
    if done.code or not command.plans:
        return
    config = engine("launch").compose(*command.arguments)
    given = [argument.lstrip("+").partition("=") for argument in command.arguments]
    values = {key: text for key, _, text in given}
    for key in values.keys() & rules.RULES.keys() - {"monitor_mode"}:
        typed, found = meant(rules.RULES[key].kind, values[key]), operator.attrgetter(key)(config)
        typed = (
            None if key.startswith("limit_") and type(typed) is float and "." in values[key] and typed == 1 else typed
        )
        typed = typed.lower() if key in ("deterministic", "compile") else typed
        assert typed is ... or typed == found, f"{key}={values[key]} was read as {found!r}"
    texts = {key: {text.replace("null", "none") for k, _, text in given if k == key} for key in values}
    twice = [key for key in values if len(texts[key]) > 1]
    assert all(f"{key} is given twice." in done.out for key in twice), done.out


REFUSED = [
    ("optimizer.layer_decay=x", "optimizer.layer_decay=x"),
    ("workers=100000", "at most 1024"),
    ("~={_target_: os.system}", "is not an override"),
    ("optimizer.layer_decay=[1]", "optimizer.layer_decay=[1]"),
    ("optimizer.no_decay_norm_bias=[1]", "true or false"),
    ("optimizer.groups=[{match: '*', weight_decay: x}]", "weight_decay='x'"),
    ("optimizer.groups=[{match: '*', 3: 4}]", "Unknown key '3'"),
    ("resume='~nobody_at_all/x'", "resume=~nobody_at_all/x"),
    (f"resume={'x' * 3000}", "is not a run"),
    (f"name={'x' * 300}", "at most 200 bytes"),
    ("loss=\x1d¢", "loss=\\x1d¢"),
    ("name='a\nb'", "a\\nb"),
    ("optimizer.layer_decay=\n", "layer_decay=\\n"),
    ("precision='a\nb'", "precision=a\\nb"),
    ("scheduler=torch scheduler._target_=torch.optim.lr_scheduler.LRScheduler", "LRScheduler"),
    ("scheduler=torch scheduler._target_=torch.optim.lr_scheduler.StepLR +scheduler.step_size=0", "ZeroDivisionError"),
    (
        "scheduler=torch scheduler._target_=torch.optim.lr_scheduler.StepLR +scheduler.step_size=x",
        "scheduler.step_size='x'",
    ),
    (
        "scheduler=torch scheduler._target_=torch.optim.lr_scheduler.StepLR +scheduler.step_size=1 "
        "scheduler.warmup_steps=x",
        "scheduler.warmup_steps='x'",
    ),
    (
        "scheduler=torch scheduler._target_=torch.optim.lr_scheduler.StepLR +scheduler.step_size=1 epochs=1000000000",
        "takes minutes for more than 10,000,000 steps",
    ),
    ("data=synthetic data.shape=[1,4,4] data.size=9 batch_size=1", "more than 1 value per channel"),
    ("mix=mixup loss=terms", "multi_margin_loss"),
    ("seed=${lr}", "seed=0.003 is not possible. Its type is int."),
    ("name=${lr}", "name=0.003 is not possible. Its type is str."),
    ("log=${lr}", "log=0.003 is not possible. It must be a section of keys."),
    ("drop_last=${name}", "drop_last=default is not possible. Its type is bool."),
    ("loss.terms=.5", "'loss.terms'"),
    ("optimizer.groups=0", "Each of the optimizer.groups needs a pattern"),
    ("drop_last=7", "drop_last=7 is not possible. Write true or false."),
    ("deterministic=${lr}", "deterministic=0.003 is not possible."),
]
"""What once ended with a traceback, a plan, several lines or never, and a word of what it says now."""


@pytest.mark.parametrize(("overrides", "named"), REFUSED, ids=[case[0][:60] for case in REFUSED])
def test_once_a_traceback(project_with_a_run, overrides, named):
    words = overrides.split(" ") if "{" not in overrides else [overrides]
    assert not project_with_a_run.check(words)
    assert named in project_with_a_run.train(*words, "dry_run=true").out


TEXTS = ["2024_01_05", "1e3", "1.10", "+5", "5.", "007", "NaN", "True", "12"]


@pytest.mark.parametrize("typed", TEXTS)
def test_a_text_stays_as_it_was_typed(engine, typed):
    """Hydra would see a number: 2024_01_05 became 20240105."""
    assert engine("launch").compose(f"name={typed}").name == typed
    swept = engine("config.compose").accept([f"name={typed},a"])
    assert swept in ([f"name='{typed}',a"], [f"name={typed},a"])


def test_a_key_with_two_values_is_told(engine, capsys):
    read = engine("config.compose").read_flags
    assert read(["lr=0.1", "lr=0.1", "seed=1"]) == ["lr=0.1", "lr=0.1", "seed=1"]
    assert capsys.readouterr().err == ""
    read(["lr=0.1", "seed=1", "++lr=0.2"])
    assert capsys.readouterr().err == "lr is given twice. lr=0.2 counts, and lr=0.1 does not.\n"


@pytest.mark.parametrize("out", ["kept/old/config.yaml", "kept/old", "x.y", ""])
def test_curves_are_drawn_into_pictures_only(project_with_a_run, out):
    done = project_with_a_run.obey(Command("digits/__main__.py", ["compare", "kept/old", "--out", out]))
    assert done.code == 2
    assert "is not a picture" in done.out


def test_a_whole_number_will_do_where_a_float_is_wanted(project_with_a_run):
    assert project_with_a_run.check(["mix=mixup", "mix.alpha=1"])


PATHS = ["x" * 3000, "~nobody_at_all/x", "", "\x1b[31m"]


@pytest.mark.parametrize("path", PATHS, ids=["long", "nobody", "empty", "escape"])
def test_a_path_that_no_system_takes(project_with_a_run, path):
    for words in ([path], ["kept/old", "--checkpoint", path], ["kept/old", "--out", f"train.py/{path}"]):
        assert project_with_a_run.obey(Command("digits/__main__.py", ["evaluate", *words])).code == 2
    assert not project_with_a_run.check([f"init_from='{path}x'"])


@pytest.mark.parametrize("text", ["a b", "a\\b", "it's", "a\\'b", "end\\", "end\\\\", "$x, [y]"])
def test_a_quoted_text_is_read_as_it_is(engine, text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = f"key={engine('text').quoted(text)}"
    assert OverridesParser.create().parse_override(typed).value() == text
