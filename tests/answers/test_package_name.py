"""Which names a package may have, and the name that follows from the project's."""

import importlib.metadata
import json
import keyword
import random
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.answers import NASTY, one_sentence
from packaging.requirements import Requirement

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
def test_good_package_names_are_accepted(render: Callable[..., Path], tmp_path: Path, name: str):
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
    render: Callable[..., Path], tmp_path: Path, project_name: str, package_name: str
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
