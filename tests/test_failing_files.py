"""Each file operation of a command may fail, or be the last one before a kill: one sentence, and nothing is lost.

`pytest tests/test_failing_files.py --failures 300` makes 300 of each command fail, `--failures 0` all in all ways.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import the_run
from helpers.watching import assert_equal

RUN = (
    *("task._target_=.stopping.Stopping", "model=mlp", "model.hidden=[8]", "epochs=2", "limit_train_batches=3"),
    *("limit_val_batches=2", "batch_size=16", "save_every_steps=2", "keep_last=2", "log.every=2", "ema_decay=0.9"),
    *("workers=0", "resume=auto"),
)


@pytest.fixture(scope="module")
def home(project, server, tmp_path_factory) -> Path:
    """A project with a finished run, "whole", and a copy of a run that was stopped, "stopped"."""
    home = shutil.copytree(project, tmp_path_factory.mktemp("failing") / "digits")
    snippets.add(home, "failing_files.py", "digits/stopping.py")
    assert server.run(home / "train.py", *RUN, "name=whole").code == 0
    assert server.run(home / "train.py", *RUN, "name=tried", AT="3", WITH="SIGTERM").code == 75
    (home / "runs/tried").rename(home / "stopped")
    return home


@pytest.fixture
def fail(server, home, tmp_path) -> Callable:
    """`fail(below, fault, number, lasting, *command)`: the result of a command, and the operations that it noted."""

    def fail(below: Path, fault: str, number: int, lasting: bool, *command: str):
        note = tmp_path / "note"
        note.write_text("[[], {}]")  # a kill leaves none
        env = {"BELOW": str(below), "FAULT": fault, "NOTE": str(note), "NUMBER": str(number)}
        env |= {"LASTING": "1"} if lasting else {}
        done = server.run(home / "failing_files.py", *command, cwd=home, **env)
        return done, *json.loads(note.read_text())

    return fail


def failures(request: pytest.FixtureRequest, counts: dict[str, int]) -> list[tuple[str, int, bool]]:
    """All faults, numbers of operations and whether the fault lasts; or as many of them as the option asks for."""
    every = [
        (fault, number, lasting)
        for fault, count in counts.items()
        for number in range(1, count + 1)
        for lasting in ((False,) if fault == "SIGKILL" else (False, True))
    ]
    wanted = request.config.getoption("failures")
    return every if not 0 < wanted < len(every) else random.Random(0).sample(every, wanted)


def untrue(done) -> str | None:
    """What is wrong with how a command tells of its failure."""
    if any(word in done.out for word in ("Traceback", "Logging error", "Exception ignored")):
        return "a traceback"
    if done.code not in (0, 137) and not 20 < len(done.last) < 600:
        return "no sentence"
    return None


@pytest.mark.parametrize("begins", ["new", "resumed"])
def test_a_run(request, server, home, fail, engine, begins):
    """A failing write is told with code 74, or the run ends well: then the file is one that no run needs."""
    tried, load = home / "runs/tried", engine("run.checkpoint").load
    options = (*RUN, "name=tried")

    def begin() -> None:
        shutil.rmtree(tried, ignore_errors=True)
        if begins == "resumed":
            shutil.copytree(home / "stopped", tried)

    begin()
    done, _, counts = fail(tried, "EIO", 0, False, str(home / "train.py"), *options)
    assert done.code == 0, done.out
    wrong = []
    for fault, number, lasting in failures(request, counts):
        begin()
        done, noted, _ = fail(tried, fault, number, lasting, str(home / "train.py"), *options)
        what = noted[number - 1] if len(noted) >= number else "its last operation"
        told = f"{fault}{' from' if lasting else ''} {number} ({what}): {done.code} {done.last}"
        print(told)
        try:
            if fault == "SIGKILL":
                assert done.code in (0, 137), done.out
            else:
                codes = {0, 74}
                codes |= {1, 2} if "cannot be read" in done.last else set()
                refused = "No run folder can be made" in done.last or done.last.startswith("The run ")
                assert done.code in codes | ({2} if refused else set()), done.out
                assert untrue(done) is None, done.out
            for path in tried.glob("[!.]*/checkpoints/*.pt"):
                load(path)
            again = server.run(home / "train.py", *options)
            assert again.code == 0, again.out
            assert untrue(again) is None, again.out
            first, *others = sorted(tried.iterdir())
            if others and "config.yaml, which cannot be read" in done.out:  # it has begun a new run, and said why
                shutil.rmtree(first)
            assert_equal(the_run(home, "whole"), the_run(home, "tried"))
        except Exception as error:
            wrong.append(f"{told}\n{type(error).__name__}: {error}"[:5000])
    assert not wrong, "\n\n".join([f"{len(wrong)} wrong", *wrong])


OLD = b"what an earlier command wrote"


@pytest.fixture(scope="module")
def place(home, server) -> Path:
    """A folder with a copy of the run "whole" and a picture."""
    from PIL import Image

    place = home / "place"
    shutil.copytree(the_run(home, "whole"), place / "run")
    Image.new("L", (8, 8), 100).save(place / "a.png")
    return place


@pytest.mark.parametrize(
    "verb",
    [
        ("evaluate", "run", "--out", "out"),
        ("predict", "run", "a.png", "--out", "out/predictions.csv"),
        ("export", "run", "--format=safetensors", "--out", "out"),
        ("compare", "run", "--out", "out/compare.png"),
    ],
    ids=lambda verb: verb[0],
)
def test_a_verb(request, home, fail, place, verb):
    """Its files are whole, new or old. The run stays as it was."""
    command = (verb[0], *(a if a.startswith("--") else str(place / a) for a in verb[1:]))

    def files() -> dict[str, bytes]:
        return {str(p.relative_to(place)): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}

    def attempt(fault: str, number: int, lasting: bool):
        return fail(place, fault, number, lasting, str(home / "digits/__main__.py"), *command)

    shutil.rmtree(place / "out", ignore_errors=True)
    done, _, counts = attempt("EIO", 0, False)
    assert done.code == 0, done.out
    right, wrong = files(), []
    for fault, number, lasting in failures(request, counts):
        for name in right:
            (place / name).write_bytes(OLD if name.startswith("out/") and number % 2 else right[name])
        done, noted, _ = attempt(fault, number, lasting)
        what = noted[number - 1] if len(noted) >= number else "its last operation"
        told = f"{fault}{' from' if lasting else ''} {number} ({what}): {done.code} {done.last}"
        print(told)
        found = files()
        hidden = [name for name in found if "/." in name and name not in right]
        try:
            assert done.code in ((0, 137) if fault == "SIGKILL" else (0, 1, 2)), done.out
            assert untrue(done) is None, done.out
            is_left = fault == "SIGKILL" or lasting or what.startswith(("unlink", "rmdir", "scandir"))
            assert not hidden or is_left, hidden
            for name, data in right.items():  # a file of safetensors has its facts in another order each time
                is_new = found[name] == data or (name.endswith("safetensors") and len(found[name]) == len(data))
                assert is_new or found[name] == OLD, f"{name} is half"
            assert set(found) - set(right) == set(hidden)
        except Exception as error:
            wrong.append(f"{told}\n{type(error).__name__}: {error}"[:5000])
        for path in [path for path in (place / "out").iterdir() if path.name[0] == "."]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not wrong, "\n\n".join([f"{len(wrong)} wrong", *wrong])
