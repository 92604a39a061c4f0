"""Broken versions of the template: each is stopped before it touches the project."""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.releases import commit, git
from helpers.updating import edit, state

from ostinato import check, update
from ostinato.check import Checks, Done
from ostinato.errors import Stopped
from ostinato.render import rendered

pytestmark = pytest.mark.xdist_group("update_broken")

ENGINE = "template/{{ package_name }}/engine"
CONFIGS = "template/configs"
NORM = "clip_grad_norm: float | None = key({},"
Change = Callable[[str], str]


def replaced(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text, f"{old!r} is not in the template: write this version anew"
        return text.replace(old, new, 1)

    return change


def after(line: str, added: str) -> Change:
    """Add a line below another one, with its indentation."""

    def change(text: str) -> str:
        found = re.search(rf"^( *){re.escape(line)}$", text, re.MULTILINE)
        assert found, f"{line!r} is not in the template: write this version anew"
        return text[: found.end()] + f"\n{found[1]}{added}" + text[found.end() :]

    return change


BROKEN: dict[str, tuple[str, Change | None, str]] = {
    "syntax error": (f"{ENGINE}/loop.py", lambda text: text + "\ndef\n", "does not compile"),
    "syntax error in train.py": ("template/train.py.jinja", lambda text: text + "\n)\n", "does not compile"),
    "renamed key": (
        f"{ENGINE}/config/schema.py",
        replaced("    clip_grad_value:", "    clip_gradient_value:"),
        "clip_grad_value is gone",
    ),
    "changed default": (
        f"{ENGINE}/config/schema.py",
        replaced(NORM.format("None"), NORM.format("1.0")),
        "clip_grad_norm was None and is now 1.0",
    ),
    "changed default of a choice": (
        f"{CONFIGS}/optimizer/adamw.yaml",
        replaced("weight_decay: 0.05", "weight_decay: 0.01"),
        "optimizer.weight_decay in configs/optimizer/adamw.yaml was 0.05 and is now 0.01",
    ),
    "changed default of a choice not in use": (
        f"{CONFIGS}/scheduler/step.yaml",
        replaced("gamma: 0.1", "gamma: 0.5"),
        "scheduler.gamma in configs/scheduler/step.yaml was 0.1",
    ),
    "renamed key of a choice": (
        f"{CONFIGS}/scheduler/step.yaml",
        replaced("gamma:", "factor:"),
        "scheduler.gamma in configs/scheduler/step.yaml is gone",
    ),
    "missing choice": (f"{CONFIGS}/scheduler/linear.yaml", None, "scheduler=linear is gone"),
    "broken YAML": (
        f"{CONFIGS}/scheduler/linear.yaml",
        lambda text: text + "a: [\n",
        "linear.yaml of the updated project",
    ),
    "broken pyproject.toml": (
        "template/pyproject.toml.jinja",
        lambda text: text + "[tool\n",
        "pyproject.toml cannot be read",
    ),
    "missing file": (f"{ENGINE}/log/statistics.py", None, "statistics"),
    "missing file that all need": (f"{ENGINE}/errors.py", None, "cannot be composed after the update"),
    "step that crashes": (
        f"{ENGINE}/loop.py",
        after("self.divisor = None", "self.no_such_thing()"),
        "does not train",
    ),
    "step without the optimizer": (
        f"{ENGINE}/loop.py",
        replaced("self.scaler.step(p.optimizer)", "pass"),
        "trains differently",
    ),
    "step with other gradients": (
        f"{ENGINE}/loop.py",
        after("self.clip_gradients()", "[t.grad.mul_(2) for t in p.parameters.values() if t.grad is not None]"),
        "trains differently",
    ),
    "schedule a step late": (
        f"{ENGINE}/schedule.py",
        replaced("done = (step - self.warmup) /", "done = (step + 1 - self.warmup) /"),
        "trains differently",
    ),
    "other random numbers": (
        f"{ENGINE}/rng.py",
        replaced("0xBF58476D1CE4E5B9", "0xBF58476D1CE4E5BB"),
        "trains differently",
    ),
    "other validation": (
        f"{ENGINE}/validation.py",
        replaced("    found = values.means()", "    found = {k: v + 1 for k, v in values.means().items()}"),
        "trains differently",
    ),
    "forgets the optimizer in a resume": (
        f"{ENGINE}/build/parts.py",
        replaced('load_optimizer_state(self.optimizer, state["optimizer"], state.get("optimizer_values"))', "pass"),
        "ends a run from before the update differently",
    ),
    "answers of its own": (
        "copier.yml",
        replaced("    GitLab CI: gitlab\n    Nowhere: none\n  default: github", "    Nowhere: none\n  default: none"),
        "cannot be rendered with the answers",
    ),
    "test that fails": (
        "template/tests/engine/test_small.py",
        replaced("assert digits", "assert not digits"),
        "test_small.py::test_small fails",
    ),
}


SMALL_TEST = """import digits


def test_small():
    assert digits.__name__
"""


@pytest.fixture(scope="session")
def source(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as 1.0.0 with one small test, to be quick. The tags 1.0.1, 1.0.2 … are broken versions."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("sources") / "whole")
    for path in [*folder.glob("template/tests/engine/*"), *folder.glob("template/*/tests/*.jinja")]:
        path.unlink()
    (folder / "template/tests/engine/test_small.py").write_text(SMALL_TEST)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "1.0.0")
    for number, (path, change, _) in enumerate(BROKEN.values(), 1):
        text = (folder / path).read_text(encoding="utf-8")
        if change is None:
            (folder / path).unlink()
        else:
            (folder / path).write_text(change(text), encoding="utf-8")
        commit(folder, f"1.0.{number}")
        git(folder, "reset", "--quiet", "--hard", "1.0.0")
    return folder


@pytest.fixture(scope="session")
def quickly_rendered(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`rendered` without Copier's clones, which take most of the time. Each version is rendered once."""
    made: dict[str, Path] = {}

    def quickly_rendered(url, version, answers, dst, address=None, answers_file=update.ANSWERS):
        questions = {key: value for key, value in answers.items() if not key.startswith("_")}
        key = repr((version, sorted(questions.items())))
        if key not in made:
            made[key] = rendered_checkout(version, questions, tmp_path_factory.mktemp("rendered") / "project")
        return shutil.copytree(made[key], dst)

    def rendered_checkout(version, questions, dst):
        checkout = tmp_path_factory.mktemp("checkouts")
        subprocess.run(["tar", "-x", "-C", checkout], input=git_bytes(source, "archive", version), check=True)
        rendered(str(checkout), "HEAD", questions, dst)
        for path in dst.rglob("*"):
            if path.is_file() and str(checkout) in (text := path.read_text(encoding="utf-8")):
                path.write_text(text.replace(str(checkout), str(source)), encoding="utf-8")
        path = dst / update.ANSWERS
        name = git(source, "describe", "--tags", version).strip()
        text = re.sub("^_src_path:.*", f"_commit: {name}\n_src_path: {source}", path.read_text(), flags=re.MULTILINE)
        path.write_text(text)
        return dst

    return quickly_rendered


def git_bytes(folder: Path, *arguments: str) -> bytes:
    return subprocess.check_output(["git", *arguments], cwd=folder)


@pytest.fixture(scope="session")
def started(quickly_rendered, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = {"package_name": "digits", "project_name": "Digits", "ci": "gitlab"}
    folder = quickly_rendered(str(source), "1.0.0", answers, tmp_path_factory.mktemp("projects") / "whole")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


@pytest.fixture(scope="session")
def before(started: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Done]:
    """The results of commands in the project before the update. They are equal in every test here."""
    return {}


@pytest.fixture
def tried(started, source, server, before, quickly_rendered, tmp_path, tmp_path_factory, monkeypatch):
    """`tried(version, *overrides)`: what an update with all its checks says; `train.py` runs in a forked process."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(update, "rendered", quickly_rendered)
    run, kept = check._run, tmp_path_factory.getbasetemp() / "run-before"

    @functools.wraps(run)
    def forked(command, folder, *arguments, **settings):
        key = arguments
        if folder.name == "before" and key in before:
            if kept.exists():
                shutil.copytree(kept, folder / "runs", dirs_exist_ok=True)
            return before[key]
        if arguments[0] == "train.py":
            result = server.run(folder / "train.py", *arguments[1:])
            out = result.out if "--cfg" in arguments and result.code == 0 else ""
            done = Done(result.code, out, result.out, 0)
        else:
            done = run(command, folder, *arguments, **settings)
        if folder.name == "before" and done.code == 0 and arguments[0] == "train.py":
            before[key] = done
            if (folder / "runs").exists():
                shutil.copytree(folder / "runs", kept, dirs_exist_ok=True)
        return done

    monkeypatch.setattr(check, "_run", forked)
    project = shutil.copytree(started, tmp_path / "project")

    def tried(version: str, *overrides: str, project: Path = project) -> list[str]:
        said: list[str] = []
        update.update(project, update.Asked(to=version), Checks(project, sys.executable, overrides), said.append)
        return said

    tried.project = project
    return tried


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_version_is_stopped(tried, name):
    number, sentence = list(BROKEN).index(name) + 1, BROKEN[name][2]
    was = state(tried.project)
    with pytest.raises((Stopped, update.Refused)) as stop:
        tried(f"1.0.{number}")
    assert sentence in str(stop.value)
    assert state(tried.project) == was


ANNOUNCED = """
## 1.1.0

- **Default changed** `clip_grad_norm`: 0.001 instead of none.
- **Removed** `scheduler=linear` and `clip_grad_value`.
"""


def test_what_the_changelog_announces_is_no_failure(tried, source):
    config = source / ENGINE / "config/schema.py"
    change = replaced(NORM.format("None"), NORM.format("0.001"))
    config.write_text(change(config.read_text()))
    (source / CONFIGS / "scheduler/linear.yaml").unlink()
    (source / "CHANGELOG.md").write_text(ANNOUNCED)
    commit(source, "1.1.0")
    loop = source / ENGINE / "loop.py"
    loop.write_text(replaced("self.scaler.step(p.optimizer)", "pass")(loop.read_text()))
    commit(source, "1.2.0")
    (source / "CHANGELOG.md").write_text("## 1.3.0\n\n- **Numbers change**: no optimizer.\n" + ANNOUNCED)
    commit(source, "1.3.0")
    git(source, "checkout", "--quiet", "--detach", "1.0.0")

    with pytest.raises(Stopped, match="trains differently"):  # that the default aside, which is told, it learns nothing
        tried("1.2.0")
    said = tried("1.1.0")
    assert any("to the same weights and values" in line for line in said)
    git(tried.project, "reset", "--quiet", "--hard", "HEAD~1")
    assert any("numbers are not compared" in line for line in tried("1.3.0"))


def test_a_project_that_does_not_train_or_whose_tests_fail_as_it_is(tried, source):
    (source / CONFIGS / "scheduler/another.yaml").write_text((source / CONFIGS / "scheduler/constant.yaml").read_text())
    commit(source, "1.4.0")
    git(source, "checkout", "--quiet", "--detach", "1.0.0")
    broken = {"fails": "def test_fails():\n    raise AssertionError\n", "missing": "import a_package_that_is_missing\n"}
    edit(tried.project, {f"tests/test_{name}.py": text for name, text in broken.items()})
    with pytest.raises(Stopped, match="does not train before the update"):
        tried("1.4.0", "data=image_folder", "data.root=/nowhere")
    assert tried("1.4.0")[-1].startswith("Updated to 1.4.0")
