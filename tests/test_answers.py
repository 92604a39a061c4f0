"""What the questions accept, what they refuse, and what becomes of the answers."""

import importlib.metadata
import json
import keyword
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import copier
import jinja2.sandbox
import pytest
import yaml
from helpers.template import POINTS, PROFILES
from packaging.requirements import Requirement

Render = Callable[..., Path]

QUESTIONS = ["project_name", "package_name", "description", "author", "starting_point", "ci", "updates"]


NASTY = {
    "double quotes": 'say "yes"',
    "triple quotes": "'''",
    "triple double quotes": '"""',
    "backslash": "\\",
    "escapes": "a\\nb\\t\\u0041\\",
    "emoji": "fast 🚀 👩‍🔬",
    "chinese": "图像分类",
    "right to left": "\u202eabc\u202c שלום",
    "lines": "first\nsecond\n\n  third\t\n",
    "expression": "{{ 7*7 }}",
    "block": "{% raw %}",
    "comment": "{# gone #}",
    "github": "${{ github.token }}",
    "hash": "# not a comment",
    "colon": "key: value, - [x]: {y}",
    "yaml": "!!python/object &a *b | > % @ `",
    "markup": "<b>R&D</b>",
    "shell": "$(touch x); `id`",
    "number": "1e3",
    "boolean": "yes",
    "null": "null",
    "spaces": "  two  spaces  ",
    "separators": "a\u2028b\u2029c\ufeffd\uffff",
    "long": "word " * 200,
}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def one_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".") and not text.startswith((" ", "{"))


@pytest.fixture(scope="session")
def macros(template: Path):
    """The macros behind defaults and validators, in an environment like Copier's."""
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(template),
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
    )
    return environment.get_template("includes/answers.jinja").module


@pytest.fixture
def cli(template: Path, tmp_path: Path):
    """Runs the real `copier copy` from an empty folder, which it returns with the process."""

    def cli(dst: str, *options: str, **env: str) -> tuple[subprocess.CompletedProcess, Path]:
        folder = tmp_path / "cwd"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "copier", "copy", "--defaults", *options, template, dst]
        process = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
            capture_output=True,
            encoding="utf-8",
        )
        return process, folder

    return cli


@pytest.fixture
def refused(render: Render, tmp_path: Path):
    """Renders, expects a refusal that leaves nothing behind, and returns its sentence."""

    def refused(**answers: object) -> str:
        with pytest.raises(ValueError, match=r"\A(Validation error for question|Invalid choice)") as error:
            render(tmp_path / "new", **answers)
        assert list(tmp_path.iterdir()) == []
        return re.sub(r"\AValidation error for question '\w+': ", "", str(error.value))

    return refused


# --- Rendering


@pytest.mark.parametrize("answers", PROFILES.values(), ids=PROFILES)
def test_every_profile_renders_the_same_bytes_twice(render: Render, tmp_path: Path, answers):
    first, second = render(tmp_path / "one", **answers), render(tmp_path / "two", **answers)
    assert files(first) == files(second)
    assert not [name for name in files(first) if name.endswith(".jinja")]
    ci = answers.get("ci", "github")
    assert (first / ".github/workflows/tests.yml").exists() == (ci == "github")
    assert (first / ".github").exists() == (ci == "github")
    assert (first / ".gitlab-ci.yml").exists() == (ci == "gitlab")


def test_rendering_needs_no_trust(template: Path):
    config = yaml.safe_load((template / "copier.yml").read_text())
    assert not {"_tasks", "_migrations", "_jinja_extensions", "_external_data"} & set(config)
    assert [key for key in config if not key.startswith("_")] == QUESTIONS
    assert all(config[name].get("help") and "default" in config[name] for name in QUESTIONS)
    assert all({"validator", "choices"} & set(config[name]) for name in QUESTIONS)


def test_rendering_needs_no_network(render: Render, tmp_path: Path, monkeypatch):
    def connect(*args):
        raise AssertionError(f"connected to {args}")

    monkeypatch.setattr(socket, "socket", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert render(tmp_path / "new").joinpath("pyproject.toml").exists()


def test_the_command_needs_no_git_and_names_the_next_steps(cli):
    process, folder = cli("my new/project", PATH="")
    assert process.returncode == 0, process.stderr
    assert (folder / "my new/project/pyproject.toml").exists()
    steps = ["  cd 'my new/project'", "  uv run python train.py", "  uv run pytest"]
    assert "\n".join(steps) in process.stderr
    assert "git init" in process.stderr
    assert "copier update" in process.stderr


def test_leftovers_of_development_are_not_rendered(template: Path, render: Render, tmp_path: Path):
    source = shutil.copytree(template, tmp_path / "source")
    root, package = source / "template", source / "template/{{ package_name }}"
    before = files(render(tmp_path / "before", source))
    for path in [
        root / ".DS_Store",
        root / ".venv/pyvenv.cfg",
        root / "__pycache__/train.cpython-313.pyc",
        root / "data/archive.tar.gz",
        root / "runs/default/metrics.jsonl",
        root / "tests/engine/__pycache__/test_loop.cpython-313.pyc",
        root / "tests/engine/stray.pyc",
        root / "uv.lock",
        root / "~lock",
        package / ".ruff_cache/CACHEDIR.TAG",
        package / "engine/.mypy_cache/a.json",
        package / "engine/__pycache__/loop.cpython-313.pyc",
        package / "engine/loop.py~",
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{{ never rendered }}")
    for path in [package / "data/probe.py", package / "engine/runs/probe.py"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    after = files(render(tmp_path / "after", source))
    assert set(after) - set(before) == {
        "my_project/data/probe.py",
        "my_project/engine/runs/probe.py",
    }


# --- Free text


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_nasty_text_gives_valid_files_and_comes_back_unchanged(render: Render, tmp_path: Path, text: str):
    answers = {"project_name": text, "description": text, "author": text}
    project = render(tmp_path / "new", package_name="nasty", **answers)
    parsed = {}
    for name, content in files(project).items():
        if name.endswith(".toml"):
            parsed[name] = tomllib.loads(content.decode())
        elif name.endswith((".yml", ".yaml")):
            parsed[name] = yaml.safe_load(content)
    stored = parsed[".copier-answers.yml"]
    assert {name: stored[name] for name in answers} == answers
    metadata = parsed["pyproject.toml"]["project"]
    line = " ".join(text.split())
    assert metadata["description"] == line
    assert metadata["authors"] == [{"name": line}]


def test_the_answers_file_holds_all_answers(render: Render, tmp_path: Path):
    project = render(tmp_path / "new", project_name="Cats & Dogs")
    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert {name: stored[name] for name in QUESTIONS} == {
        "project_name": "Cats & Dogs",
        "package_name": "cats_dogs",
        "description": "A PyTorch training project.",
        "author": "Me",
        "starting_point": "image_classification",
        "ci": "github",
        "updates": "weekly",
    }
    kept = {"package_name": "cats_dogs", "starting_point": "image_classification", "lean": True}
    assert stored["rendered_as"] == kept
    assert set(stored) == {*QUESTIONS, "_src_path", "rendered_as"}


def test_no_author_gives_no_authors(render: Render, tmp_path: Path):
    project = render(tmp_path / "new", author=" \n")
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert "authors" not in metadata


@pytest.mark.parametrize("question", ["project_name", "description", "author"])
@pytest.mark.parametrize("bad", ["\0", "\a", "\r", "\x1b", "\x7f", "\x85", "\udcff"], ids=ascii)
def test_control_characters_are_refused_with_their_code_point(refused, question: str, bad: str):
    sentence = refused(**{question: f"ab{bad}c\nd\te"})
    assert one_sentence(sentence)
    assert f"{question} contains the control character U+{ord(bad):04X}" in sentence


def test_no_other_character_is_refused(macros):
    refused = {c for c in map(chr, range(0x10000)) if macros.text_problem("author", c)}
    control = {c for c in map(chr, range(0xA0)) if not c.isprintable() and c != "\xa0"}
    assert refused == control - {"\n", "\t"} | set(map(chr, range(0xD800, 0xE000)))


@pytest.mark.parametrize("name", ["", " ", "\n\t"], ids=ascii)
def test_an_empty_project_name_is_refused(refused, name: str):
    sentence = refused(project_name=name, package_name="fine")
    assert one_sentence(sentence)
    assert "project_name is empty" in sentence


# --- Choices


@pytest.mark.parametrize("question", ["starting_point", "ci"])
@pytest.mark.parametrize("answer", ["foo", "", "GitHub", "github\n", "none "], ids=ascii)
def test_unknown_choices_are_refused(refused, question: str, answer: str):
    sentence = refused(**{question: answer})
    assert f"Invalid choice for '{question}': {answer!r} is not in ['" in sentence
    assert "\n" not in sentence


# --- Package names


MALFORMED = [
    "",
    " ",
    "a b",
    "a-b",
    "a.b",
    "a/b",
    "../a",
    "A",
    "myProject",
    "Class",
    "_a",
    "1a",
    "9",
    "abc1\n",
    "abc1\r",
    "\nabc1",
    "abc1\0",
    "größe",
    "ﬁt1",
    "\u0430bc1",  # the first letter is Cyrillic
    "abc٣",
    "中文",
    "a🚀",
    "{{ 7*7 }}",
    'a"b',
    "a" * 41,
]
RESERVED = {
    "Python keyword": ["class", "lambda", "async", "match", "type"],
    "standard library": ["os", "json", "code", "test", "tomllib", "asyncore", "annotationlib"],
    "package that projects install": [
        *[
            "torch",
            "torchvision",
            "torchmetrics",
            "torchgen",
            "functorch",
            "numpy",
            "pil",
            "sklearn",
        ],
        *["scipy", "hydra", "omegaconf", "antlr4", "yaml", "tensorboard", "tensorboardx", "tqdm"],
        *["matplotlib", "pytest", "ruff", "mypy", "ty", "setuptools", "pip", "wheel", "hatchling"],
        *[
            "safetensors",
            "onnx",
            "onnxscript",
            "optuna",
            "wandb",
            "mlflow",
            "lightning",
            "submitit",
        ],
        *["copier", "jinja2", "ostinato", "packaging", "google", "grpc", "markdown", "absl", "six"],
        *["hydra_core", "scikit_learn", "pillow", "pyyaml", "grpcio", "protobuf"],
    ],
    "project itself": [
        *["configs", "tests", "runs", "train", "find_lr", "data", "docs", "src", "build", "dist"],
        *["conftest", "outputs", "multirun", "checkpoints", "engine", "task", "models", "losses"],
    ],
    "device name on Windows": ["con", "prn", "aux", "nul", "com0", "com9", "lpt0", "lpt9"],
}


def check_package_refusal(sentence: str, name: str, macros) -> None:
    assert one_sentence(sentence)
    assert sentence.startswith(json.dumps(name, ensure_ascii=False) + " cannot be the package name")
    instead = re.search(r", such as (.*)\.\Z", sentence)[1]
    assert macros.package_problem(instead) == ""


@pytest.mark.parametrize("name", MALFORMED, ids=ascii)
def test_malformed_package_names_are_refused(refused, macros, name: str):
    check_package_refusal(refused(package_name=name), name, macros)


@pytest.mark.parametrize("why", RESERVED)
def test_reserved_package_names_are_refused(refused, macros, why: str):
    for name in RESERVED[why]:
        sentence = refused(package_name=name)
        check_package_refusal(sentence, name, macros)
        assert why in sentence


def installed_names(requirements: set[str]) -> set[str]:
    """What the requirements bring, distributions and modules, as far as it is installed here."""

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "_", name.lower())

    modules: dict[str, set[str]] = {}
    for module, owners in importlib.metadata.packages_distributions().items():
        for owner in owners:
            modules.setdefault(normal(owner), set()).add(module.lower())
    names, waiting = set(), {normal(name) for name in requirements}
    while waiting:
        name = waiting.pop()
        if name in names or name not in modules:
            continue
        names.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.add(normal(requirement.name))
    return names.union(*(modules[name] for name in names))


def test_every_keyword_module_and_dependency_is_reserved(template: Path, macros):
    pyproject = (template / "template/pyproject.toml.jinja").read_text()
    requirements = set(re.findall(r'^    "([\w-]+)>=', pyproject, re.MULTILINE))
    assert {"torch", "hydra-core", "pytest"} <= requirements
    names = installed_names(requirements) | requirements
    names |= {name.lower() for name in sys.stdlib_module_names}
    names |= {word for word in keyword.kwlist + keyword.softkwlist if word.islower()}
    names = {name for name in names if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    assert len(names) > 220
    free = {name for name in names if not macros.package_problem(name)}
    assert {name for name in free if not name.startswith("nvidia_")} == set()


@pytest.mark.parametrize("name", ["a", "x1", "a__b", "a_", "my_project", "torch_project", "a" * 40])
def test_good_package_names_are_accepted(render: Render, tmp_path: Path, name: str):
    project = render(tmp_path / "new", package_name=name)
    pyproject = tomllib.loads((project / "pyproject.toml").read_text())
    assert re.fullmatch(r"[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]", pyproject["project"]["name"])
    assert pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [name]


@pytest.mark.parametrize(
    ("project_name", "package_name"),
    [
        ("My Project", "my_project"),
        ("  ConvNeXt-v2!! ", "convnext_v2"),
        ("Cats & Dogs", "cats_dogs"),
        ("Größe", "gr_e"),
        ("图像分类", "my_project"),
        ("🚀", "my_project"),
        ("___", "my_project"),
        ("3D U-Net", "project_3d_u_net"),
        ("2024", "project_2024"),
        ("Class", "class_project"),
        ("Torch", "torch_project"),
        ("Test", "test_project"),
        ("CON", "con_project"),
        ("a\nb\tc", "a_b_c"),
        ("{{ 7*7 }}", "project_7_7"),
        ("x" * 300, "x" * 30),
    ],
    ids=ascii,
)
def test_the_package_name_follows_from_the_project_name(
    render: Render, tmp_path: Path, project_name: str, package_name: str
):
    project = render(tmp_path / "new", project_name=project_name)
    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert stored["package_name"] == package_name
    assert (project / package_name).is_dir()


def test_every_derived_package_name_is_valid(macros):
    dice = random.Random(0)
    words = [word for names in macros.reserved.values() for word in names.split()]
    texts = [*MALFORMED, *NASTY.values(), *words, *(word.upper() for word in words)]
    texts += ["".join(dice.choices("aZ09_- é中\n.", k=dice.randrange(80))) for _ in range(1000)]
    for text in texts:
        name = macros.package_default(text)
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name), text
        assert macros.package_problem(name) == "", text


# --- The command line's refusals


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("package_name=class", '"class" cannot be the package name because it is a Python keyword'),
        ("package_name=abc1\n", '"abc1\\n" cannot be the package name. Begin with a letter'),
        ("ci=foo", "Invalid choice for 'ci': 'foo' is not in ['github', 'gitlab', 'none']"),
        ("author=a\x1bb", "The author contains the control character U+001B. Remove it"),
    ],
    ids=ascii,
)
def test_the_command_ends_with_the_sentence_and_leaves_nothing(cli, data: str, sentence: str):
    process, folder = cli("deep/new", "--data", data)
    assert process.returncode != 0
    assert sentence in process.stderr.splitlines()[-1]
    assert list(folder.iterdir()) == []


def test_a_refusal_leaves_an_existing_folder_as_it_was(cli, tmp_path: Path):
    (tmp_path / "cwd/old").mkdir(parents=True)
    (tmp_path / "cwd/old/notes.txt").write_text("mine")
    process, folder = cli("old", "--data", "package_name=class")
    assert process.returncode != 0
    assert files(folder) == {"old/notes.txt": b"mine"}


# --- Ownership


YOURS = [
    "README.md",
    "configs/train.yaml",
    "configs/experiment/probe.yaml",
    "PACKAGE/task.py",
    "PACKAGE/losses.py",
    "PACKAGE/metrics.py",
    "PACKAGE/data/probe.py",
    "PACKAGE/models/probe.py",
    "PACKAGE/models/deep/probe.py",
    "tests/test_probe.py",
    "tests/conftest.py",
    "tests/deep/test_probe.py",
]
OURS = [
    "probe.py",
    "README.txt",
    "configs/data/probe.yaml",
    "configs/model/train.yaml",
    "configs/model/experiment/probe.yaml",
    "PACKAGE/probe.py",
    "PACKAGE/engine/probe.py",
    "PACKAGE/engine/README.md",
    "PACKAGE/engine/losses.py",
    "PACKAGE/engine/task.py",
    "PACKAGE/engine/data/probe.py",
    "PACKAGE/engine/datasets/probe.py",
    "PACKAGE/engine/models/probe.py",
    "PACKAGE/engine/tests/probe.py",
    "PACKAGE/engine/tools/probe.py",
    "tests/engine/conftest.py",
    "tests/engine/test_probe.py",
    "tests/engine/deep/test_probe.py",
]


def git(folder: Path, *args: str) -> str:
    config = ["user.name=Test", "user.email=test@example.org", "commit.gpgsign=false"]
    options = [word for setting in config for word in ("-c", setting)]
    return subprocess.check_output(["git", *options, *args], cwd=folder, text=True)


def commit(folder: Path, tag: str | None = None) -> None:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--no-verify", "--message", "All")
    if tag:
        git(folder, "tag", tag)


def write(folder: Path, package: str, paths: list[str], text: str) -> None:
    for path in paths:
        file = folder / path.replace("PACKAGE", package)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_an_update_renews_the_templates_files_and_leaves_yours_alone(template: Path, tmp_path: Path):
    source = shutil.copytree(template, tmp_path / "source")
    git(source, "init", "--quiet")
    for version in ["v1", "v2"]:
        body = "\n".join(["# probe", *(f"# line {n}" for n in range(9)), f"# {version}", ""])
        shared, point = source / "template", source / "template" / POINTS["image_classification"].name
        for folder, paths in ((point, YOURS), (shared, OURS)):
            write(folder, "{{ package_name }}", paths, body)
            for path in paths:  # a real file with .jinja after the same name would win
                file = folder / path.replace("PACKAGE", "{{ package_name }}")
                file.with_name(f"{file.name}.jinja").unlink(missing_ok=True)
        if version == "v2":
            write(point, "{{ package_name }}", ["configs/experiment/late.yaml"], "")
            write(source / "template", "{{ package_name }}", ["PACKAGE/engine/late.py"], "")
        commit(source, version)

    project = tmp_path / "project"
    options = {"defaults": True, "quiet": True, "unsafe": False, "settings": copier.Settings()}
    copier.run_copy(str(source), project, {"package_name": "cats"}, vcs_ref="v1", **options)
    git(project, "init", "--quiet")
    commit(project)
    paths = [project / path.replace("PACKAGE", "cats") for path in YOURS]
    edited, deleted, untouched = paths[0::3], paths[1::3], paths[2::3]
    assert all(path.read_text().endswith("# v1\n") for path in paths)
    for path in edited:
        path.write_text("# mine\n" + path.read_text())
    for path in deleted:
        path.unlink()
    added = [project / "cats/models/mine.py", project / "cats/engine/mine.py"]
    for path in added:
        path.write_text("# mine\n")
    engine = project / "cats/engine/probe.py"
    engine.write_text("# mine\n" + engine.read_text())
    commit(project)
    before = files(project)

    copier.run_update(project, overwrite=True, **options)

    stored = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert stored["_commit"] == "v2"
    for path in edited + untouched + added:
        assert path.read_bytes() == before[path.relative_to(project).as_posix()]
    assert not [path for path in deleted if path.exists()]
    assert not (project / "configs/experiment/late.yaml").exists()
    assert (project / "cats/engine/late.py").exists()
    for path in OURS:
        text = (project / path.replace("PACKAGE", "cats")).read_text()
        assert text.startswith("# probe\n") or path == "PACKAGE/engine/probe.py"
        assert text.endswith("# line 8\n# v2\n"), path
    assert engine.read_text().startswith("# mine\n# probe\n")
    changed = {line[3:] for line in git(project, "status", "--porcelain", "-uall").splitlines()}
    expected = {path.replace("PACKAGE", "cats") for path in OURS}
    assert changed == {*expected, ".copier-answers.yml", "cats/engine/late.py"}
