"""Each damage of a run folder ends in one sentence and the right code, never in a traceback or a lie.

`pytest tests/shared_runs/test_any_damage.py --damages 3000` tries as many damages as you like.
"""

import json
import random
import shutil
from pathlib import Path

import pytest
from helpers.damaging import damage
from helpers.runs import the_run

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=2", "logger=none", "log.curves=false", "workers=0")
COMMANDS = ("evaluate", "predict", "export", "compare", "resume", "auto", "pack", "reproduce")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("damages")))


@pytest.fixture(scope="package")
def damaged(source, tmp_path_factory) -> Path:
    """A project without a run, and a picture in it."""
    from PIL import Image

    folder = shutil.copytree(source, tmp_path_factory.mktemp("damaged") / "digits")
    shutil.rmtree(folder / "runs")
    Image.new("L", (8, 8), 100).save(folder / "a.png")
    return folder


@pytest.fixture(scope="package")
def right(source, server) -> dict[str, object]:
    """The undamaged runs, and the values that they give."""
    values: dict[str, object] = {"runs": {name: the_run(source, name) for name in ("default", "stopped")}}
    for name, run in values["runs"].items():
        assert server.run(source / "digits/__main__.py", "evaluate", str(run), "--out", str(source)).code == 0
        values[name] = json.loads((source / "evaluate-val.json").read_text())["values"]
    return values


def test_any_damage_is_a_sentence(server, damaged, right, tmp_path, seed):
    draw = random.Random(seed)
    name = draw.choice(("default", "stopped"))
    twin = shutil.copytree(right["runs"][name], damaged / "runs" / name / "run")
    try:
        done_to = damage(draw, twin)
        if draw.random() < 0.2:
            done_to += f"; {damage(draw, twin)}"
        command = draw.choice(COMMANDS[: 7 + (draw.random() < 0.3)])
        if command == "resume":
            done = server.run(damaged / "train.py", f"resume={twin}")
        elif command == "auto":
            done = server.run(damaged / "train.py", "resume=auto", *QUICK, f"name={name}")
        else:
            more = {"predict": [damaged / "a.png"], "export": ["--out", tmp_path], "evaluate": ["--out", tmp_path]}.get(
                command, []
            )
            more = ["--out", tmp_path / "x.png"] if command == "compare" else more
            more = ["--out", tmp_path / "x.run.zip", "--weights"] if command == "pack" else more
            done = server.run(damaged / "digits/__main__.py", command, str(twin), *map(str, more), cwd=damaged)
        told = f"{command} after {done_to}: code {done.code}\n{done.out}"
        assert "Traceback" not in done.out, told
        assert done.code in (0, 1, 2, 74, 75), told
        if done.code:
            assert len(done.last) > 20, told
            assert len(done.last) < 1500, told
        elif command == "evaluate" and ".pt" in done_to and "=" not in done_to:
            found = json.loads((tmp_path / "evaluate-val.json").read_text())["values"]
            assert found in (right["default"], right["stopped"]), told
    finally:
        shutil.rmtree(damaged / "runs")
