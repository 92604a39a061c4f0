"""The gallery of docs/gallery/: tasks that need other parts of the interface than classification does."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
from helpers import pages
from helpers.runs import logged, result, rows, the_run


@dataclasses.dataclass(frozen=True)
class Kit:
    """A page of the gallery, its experiment, and the value of `monitor` that it must reach."""

    page: str
    name: str
    reaches: float
    is_score: bool = False

    def overrides(self) -> tuple[str, ...]:
        return (f"experiment={self.name}", "logger=none")

    def install(self, workspace: Path) -> None:
        pages.install(pages.DOCS / f"gallery/{self.page}.md", workspace)


KITS = [
    Kit("gan", "gan", 0.3),
    Kit("detection", "detection", 0.9, is_score=True),
    Kit("contrastive", "contrastive", 0.8, is_score=True),
    Kit("several-losses", "learned_loss", 0.02),
    Kit("two-inputs", "two_inputs", 0.002),
]


@pytest.fixture(params=KITS, ids=lambda kit: kit.name)
def kit(request, workspace):
    request.param.install(workspace)
    return request.param


@pytest.fixture
def reproduce(server, workspace):
    return lambda *arguments: server.run(workspace / "digits/__main__.py", "reproduce", *map(str, arguments))


def test_it_learns(kit, train, workspace):
    done = train(*kit.overrides())
    assert done.code == 0, done.out
    best = result(the_run(workspace, kit.name))["best"]
    assert best >= kit.reaches if kit.is_score else best <= kit.reaches


MOST = "{source: loss, name: most, statistic: max, window: 3}"
SPREAD = "{source: loss, name: spread, statistic: std, window: global}"
WINDOWS = f"log.windows=[{MOST},{SPREAD}]"
SHORT = ("epochs=2", "limit_train_batches=6", "log.every=4", "save_every_steps=3", WINDOWS)


def test_it_repeats_when_it_was_killed(kit, train, reproduce, workspace):
    accumulated = ("accumulate=4", "drop_last=false", "batch_size=40", "ema_decay=0.9")
    assert train(*kit.overrides(), *SHORT, *accumulated).code == 0
    done = reproduce(the_run(workspace, kit.name), "--stop-at", "5,10", "--workers", "2")
    assert done.code == 0, done.out
    assert done.last.startswith("identical")


# What `reproduce` calls for each of the processes that train a run again.
CHILD = """
import sys
from digits.engine.tools.reproduce import _train

sys.exit(_train(sys.argv[1], "", *sys.argv[2:]))
"""


def test_two_processes_take_the_same_batches(kit, train, train_together, server, workspace):
    """Two processes equal two accumulated micro-batches, up to rounding, and they repeat."""
    assert train(*kit.overrides(), *SHORT, "accumulate=2", "log.every=1").code == 0
    one = the_run(workspace, kit.name)
    done = train_together(*kit.overrides(), *SHORT, "log.every=1", "name=two")
    assert done.code == 0, done.out
    two = the_run(workspace, "two")
    for ours, theirs in zip(rows(one), rows(two), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            if not key.startswith("time/"):
                assert theirs[key] == pytest.approx(ours[key], rel=2e-3, abs=1e-4), (ours["step"], key)
    again = shutil.copytree(two, two.with_name("again"), ignore=shutil.ignore_patterns("*.pt", "metrics.jsonl"))
    manifest = (again / "manifest.json").read_text()
    (again / "manifest.json").write_text(manifest.replace('"status": "finished"', '"status": "running"'))
    (workspace / "child.py").write_text(CHILD)
    for stop, code in ((("7", "SIGTERM"), 75), ((), 0)):
        done = server.run_together(workspace / "child.py", str(again), *stop)
        assert done.code == code, done.out
    assert result(again) == result(two)
    assert logged(again) == logged(two)


def test_turns_change_one_network_each_as_two_optimizers_would(train, workspace):
    """A network that rests keeps its weights, moments and step count."""
    import torch

    kit = KITS[0]
    kit.install(workspace)
    options = ("limit_train_batches=5", "epochs=1", "save_every_steps=1", "keep_last=9", "val_every_epochs=0")
    assert train(*kit.overrides(), *options).code == 0
    paths = sorted((the_run(workspace, "gan") / "checkpoints").glob("step-*.pt"))
    states = [torch.load(path, weights_only=True) for path in paths]
    assert [state["step"] for state in states] == [1, 2, 3, 4, 5]
    for before, after in itertools.pairwise(states):
        trained = ("discriminator", "generator")[before["step"] % 2]
        for name, weights in before["model"].items():
            moves = not torch.equal(weights, after["model"][name])
            assert moves == name.startswith(trained), (before["step"], name)
    for name, moments in states[-1]["optimizer"].items():
        assert moments["step"] == (2 if name.startswith("generator") else 3)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (
            "gan",
            ("return [(", "return ['discrimator'] or [("),
            "names the group 'discrimator'. Groups: generator, discriminator.",
        ),
        (
            "contrastive",
            ("rng.choice(members, 4)", "rng.choice(members, 4) + 500"),
            "in epoch 1. It must lie between 0",
        ),
        (
            "contrastive",
            ("rng.choice(members, 4)", "rng.random(4)"),
            "must return whole numbers in one dimension, not float64",
        ),
        ("contrastive", ("range(16)", "range(15 + epoch)"), "gave 544 samples for epoch 2, but 512 for the first one"),
    ],
)
def test_mistakes(train, workspace, name, code, words):
    kit = next(kit for kit in KITS if kit.name == name)
    kit.install(workspace)
    path = workspace / f"digits/{name}.py"
    assert code[0] in path.read_text()
    path.write_text(path.read_text().replace(*code))
    done = train(*kit.overrides())
    assert done.code in (1, 2)
    assert words in done.last
    assert "Traceback" not in done.out


def test_every_batch_is_what_order_says(train, workspace):
    kit = next(kit for kit in KITS if kit.name == "contrastive")
    kit.install(workspace)
    assert train(*kit.overrides(), "epochs=2", "log.every=1").code == 0
    logged = rows(the_run(workspace, "contrastive"))
    assert {row["train/kinds"] for row in logged if "train/kinds" in row} == {8.0}
    manifest = json.loads((the_run(workspace, "contrastive") / "manifest.json").read_text())
    assert manifest["result"]["steps"] == 32


def test_a_model_with_two_inputs_is_exported(train, server, workspace):
    kit = next(kit for kit in KITS if kit.name == "two_inputs")
    kit.install(workspace)
    assert train(*kit.overrides(), "epochs=1").code == 0
    done = server.run(workspace / "digits/__main__.py", "export", str(the_run(workspace, "two_inputs")))
    assert done.code == 0, done.out


def test_fine_tuning(train, workspace):
    """The first two commands of the page: another head, and a backbone that rests for ten epochs."""
    import torch

    pages.install(pages.DOCS / "gallery/fine-tuning.md", workspace)
    assert train("experiment=source", "logger=none", "epochs=2").code == 0
    source = the_run(workspace, "source") / "checkpoints/best.pt"
    done = train("experiment=fine_tuning", "logger=none", f"init_from={source}", "epochs=15", "keep_last=null")
    assert done.code == 0, done.out
    assert "loaded 36 of 38 tensors" in done.out, "all but the classifier of other digits"
    paths = sorted((the_run(workspace, "fine_tuning") / "checkpoints").glob("step-*.pt"))
    first, tenth, last = (torch.load(paths[n], weights_only=True)["model"]["stem.0.weight"] for n in (0, 9, 14))
    assert torch.equal(first, tenth)
    assert not torch.equal(tenth, last)


def test_every_page_of_the_gallery_is_tested():
    tested = {kit.page for kit in KITS} | {"fine-tuning", "index"}
    assert {path.stem for path in (pages.DOCS / "gallery").glob("*.md")} == tested
