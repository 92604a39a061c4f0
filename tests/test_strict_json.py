"""Files for machines hold strict JSON: null for a number that is infinite or NaN. Readers take null and old files."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import snippets
from helpers.runs import the_run
from helpers.template import ROOT

OPTIONS = (
    "task._target_=.undefined.Undefined",
    "monitor=val/odd",
    "monitor_mode=max",
    "logger=none",
    "epochs=2",
    "limit_train_batches=4",
)


def strict(text: str) -> object:
    """Read JSON as other languages do: they know no NaN and no Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} in {text[:200]}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def odd(train, workspace) -> Path:
    """The folder of a run with values that are NaN and infinite."""
    snippets.add(workspace, "digits/undefined.py")
    done = train(*OPTIONS, "log.curves=true")
    assert done.code == 0, done.out
    return the_run(workspace)


def rewrite_as_before(folder: Path) -> None:
    """What releases up to 0.2.0 wrote."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    huge = [{k: math.inf if v is None and "huge" in k else v for k, v in row.items()} for row in rows]
    nan = [{k: math.nan if v is None else v for k, v in row.items()} for row in huge]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nan))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["result"]["last"] = math.nan
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_writer(engine):
    paths = engine("paths")
    values = {"a": [1.5, math.nan, (math.inf, 2)], "b": {"c": -math.inf, "d": None, "é": True}, "e": np.float64("nan")}
    assert strict(paths.to_json(values)) == {
        "a": [1.5, None, [None, 2]],
        "b": {"c": None, "d": None, "é": True},
        "e": None,
    }
    number = 0.1 + 0.2
    assert json.loads(paths.to_json({"x": number, "y": 5e-324})) == {"x": number, "y": 5e-324}
    assert '"é"' in paths.to_json({"é": 1})


def test_no_other_file_of_the_engine_writes_json():
    engine = ROOT / "template/{{ package_name }}/engine"
    writers = {
        path.name for path in engine.rglob("*.py") if re.search(r"json\.dumps?\(", path.read_text(encoding="utf-8"))
    }
    assert writers == {"paths.py", "api.py"}, "api.py hashes the text"


def test_every_file_of_a_run(odd, server, workspace, train, tmp_path):
    rows = [strict(line) for line in (odd / "metrics.jsonl").read_text().splitlines()]
    found = {tag for row in rows for tag, value in row.items() if value is None}
    assert found == {f"{place}/{key}" for place in ("train", "train_epoch", "val") for key in ("odd", "huge")}
    manifest = strict((odd / "manifest.json").read_text())
    assert manifest["result"]["last"] is None
    assert manifest["result"]["best"] is None
    assert (odd / "curves.png").exists()

    def verb(*arguments):
        done = server.run(workspace / "digits/__main__.py", *map(str, arguments))
        assert done.code == 0, done.out
        return done

    assert "nan" in verb("evaluate", odd, "--out", tmp_path).out
    values = strict((tmp_path / "evaluate-val.json").read_text())["values"]
    assert values["val/odd"] is None
    assert values["val/loss"] > 0
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    verb("predict", odd, tmp_path / "one.png", "--out", tmp_path / "rows.jsonl")
    row = strict((tmp_path / "rows.jsonl").read_text())
    assert (row["odd"], row["several"]) == (None, [1.0, None])
    done = server.run(workspace / "find_lr.py", *OPTIONS)
    (curve,) = workspace.glob("runs/default/find_lr/*/find_lr.jsonl")
    assert all(strict(line)["loss"] > 0 for line in curve.read_text().splitlines()), done.out


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "old"])
def test_readers(odd, server, workspace, train, is_old):
    if is_old:
        rewrite_as_before(odd)
    done = server.run(workspace / "digits/__main__.py", "compare", str(odd))
    assert done.code == 0, done.out
    assert done.out.splitlines()[1].split()[-3:-1] == ["-", "-"], "no last value and no best one"
    done = server.run(workspace / "digits/__main__.py", "reproduce", str(odd))
    assert done.code == 0, done.out
    assert done.last.startswith("identical: 8 steps")
    done = train("resume=auto", *OPTIONS, "epochs=3")
    assert done.code == 0, done.out
    rows = [strict(line) for line in (odd / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val/odd" in row] == [4, 8, 12]
    strict((odd / "manifest.json").read_text())


def test_a_difference_beside_a_null_is_found(odd, server, workspace):
    lines = (odd / "metrics.jsonl").read_text().splitlines()
    assert '"val/odd": null' in lines[-1]
    (odd / "metrics.jsonl").write_text("\n".join([*lines[:-1], lines[-1].replace('"val/odd": null', '"val/odd": 1.5')]))
    done = server.run(workspace / "digits/__main__.py", "reproduce", str(odd))
    assert done.code == 1
    assert "different: first at step 8 in val/odd: 1.5, and again nan." in done.out


def test_the_table_of_a_sweep(train, workspace):
    snippets.add(workspace, "digits/undefined.py")
    done = train("-m", "seed=0,1", *OPTIONS)
    assert done.code == 0, done.out
    assert [line.split()[4] for line in done.out.splitlines() if " finished " in line] == ["nan", "nan"]
