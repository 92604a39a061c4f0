"""The starting point `tabular`: what it reaches, reads, refuses and repeats."""

import importlib
import json
import sys
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
import torch
from helpers.runs import result, rows
from helpers.starting_points import assert_nothing_of_others, point_fixture

pandas = pytest.importorskip("pandas")

SHORT = ("epochs=2", "batch_size=16", "limit_train_batches=5", "model.width=16", "model.dropout=0")

point = point_fixture("tabular", *SHORT)


def test_it_tells_benign_from_malignant(point):
    run = point.default_run()
    assert result(run)["best"] < 0.15
    assert [row for row in rows(run) if "val/acc" in row][-1]["val/acc"] > 0.93


def test_nothing_of_other_starting_points(point):
    configs = {"data/table", "data/breast_cancer", "data/diabetes", "model/net", "experiment/diabetes"}
    code = {"digits/data/table.py", "digits/data/examples.py", "digits/models/net.py"}
    assert_nothing_of_others(point.project, {f"configs/{name}.yaml" for name in configs} | code)


def test_exact(point):
    point.assert_exact()


def test_in_parts(point):
    point.assert_equal_in_parts()


@pytest.fixture
def table(point, monkeypatch):
    """The project's module data.table."""
    monkeypatch.syspath_prepend(str(point.project.parent))
    name = point.project.name
    yield importlib.import_module(f"{name}.digits.data.table")
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]


def saved(folder, **columns):
    pandas.DataFrame(columns).to_csv(folder / "t.csv", index=False)
    return str(folder / "t.csv")


def test_all_rows_decide_what_the_target_is(table, tmp_path):
    """One number with a fraction, or one of more than twenty values, makes a number of the target, in any split."""
    for rare in (2.5, 99):
        for place in range(0, 60, 7):
            values = [float(number % 20) for number in range(60)]
            values[place] = rare
            data = table.Table(saved(tmp_path, x=range(60), y=values), "y", val_fraction=0.4)
            targets = [data.split(name).tensors[2] for name in ("train", "val", "test")]
            mean, spread = data.info["target"]
            assert sorted((torch.cat(targets).double() * spread + mean).tolist()) == pytest.approx(
                sorted(values), abs=1e-5
            )
    data = table.Table(saved(tmp_path, x=range(50), y=[number % 5 for number in range(50)]), "y")
    assert data.info["class_names"] == ["0", "1", "2", "3", "4"]


def test_folds_are_dealt_over_the_classes(table, tmp_path):
    """Each row is in one fold. Folds have equal sizes, also if no class has enough rows for each fold."""
    classes = [f"c{number // 3}" for number in range(24)]  # eight classes of three rows
    path, seen = saved(tmp_path, x=range(24), y=classes), []
    for fold in range(4):
        data = table.Table(path, "y", test_fraction=0, folds=4, fold=fold)
        held, rest = data.parts["val"].tolist(), data.parts["train"].tolist()
        assert len(held) == 6
        assert sorted(held + rest) == list(range(24))
        assert max(Counter(classes[row] for row in held).values()) == 1, "at most one row of each class"
        seen += held
    assert sorted(seen) == list(range(24))


def test_targets_that_cannot_be_learned(table, tmp_path):
    for values, said in (
        ([None] * 40, "No row has a value in the column 'y'"),
        (["a"] * 40, "All rows have the class 'a' in 'y'"),
        ([*np.linspace(0, 1, 39), np.inf], "Column 'y' has infinite numbers"),
    ):
        with pytest.raises(table.UserError, match=said):
            table.Table(saved(tmp_path, x=range(40), y=values), "y")


def test_numbers_of_every_kind(table, tmp_path):
    """A gap makes floats of whole numbers, and databases write decimals. Classes keep their names."""
    data = table.Table(saved(tmp_path, x=range(40), y=[None, 1, 2, 3] * 10), "y")
    assert data.info["class_names"] == ["1", "2", "3"]
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    exact = [Decimal(number) / 4 for number in range(40)]
    pandas.DataFrame({"x": [None, *exact[1:]], "y": exact}).to_parquet(tmp_path / "t.parquet")
    info = table.Table(str(tmp_path / "t.parquet"), "y").info
    assert set(info["numbers"]) == {"x"}
    assert "target" in info


def test_a_constant_column_is_not_blown_up(table, tmp_path):
    """0.1 is no binary number, so the deviation of a constant may be 1e-17. A small one that is real stays."""
    for constant in (0.1, 1e9 / 3, -7.0, 0.0):
        x = np.array([1.0, 2.0] * 20)
        path = saved(tmp_path, a=[constant] * 40, b=1e-9 * x, c=1 + 1e-9 * x, y=[0, 1] * 20)
        data = table.Table(path, "y")
        numbers = data.split("val").tensors[0].double()
        assert numbers[:, 0].abs().max() < 1e-3
        for place in (1, 2):
            assert numbers[:, place].abs().numpy() == pytest.approx(1, abs=1e-5)


def test_predict_reads_categories_as_texts(table, tmp_path):
    """A column of "1", "2" and "x" has the category "1", also in a file where all are numbers, or some are missing."""
    path = saved(tmp_path, code=["1", "2", "x", "03"] * 10, flag=[True, False, None, True] * 10, y=[0, 1] * 20)
    data = table.Table(path, "y")
    assert data.info["categories"]["code"] == ["03", "1", "2", "x"]
    assert data.info["numbers"]["flag"] == pytest.approx([2 / 3, (2 / 9) ** 0.5, True], abs=0.1)
    (tmp_path / "new.csv").write_text("code,flag\n1,True\n,False\n03,\n7,True\n")
    rows = data.files([str(tmp_path / "new.csv")])
    assert rows.tensors[1][:, 0].tolist() == [2, 0, 1, 0]
    assert rows.tensors[0][:, 1].tolist() == [0, 0, 1, 0], "where the flag is missing"
    (tmp_path / "new.csv").write_text("code,flag\n1,True\n2,False\n")
    assert data.files([str(tmp_path / "new.csv")]).tensors[1][:, 0].tolist() == [2, 3]


@pytest.fixture(scope="module")
def houses(point, tmp_path_factory):
    """Prices that follow from the area and the town, in files of every kind; the validation data are in them."""
    draw, count = np.random.default_rng(0), 400
    area, town = draw.uniform(30, 200, count), draw.choice(["Bern", "Genf", "Zug"], count)
    price = 1000 * area + 50_000 * (town == "Zug") + draw.normal(0, 2000, count)
    frame = pandas.DataFrame({"id": range(count), "area": area, "town": town, "price": price})
    frame.loc[::17, "area"] = None
    frame.loc[::19, "town"] = None
    frame.loc[::40, "price"] = None
    path = tmp_path_factory.mktemp("houses") / "houses.csv"
    frame.to_csv(path, index=False)
    frame.to_csv(path.with_suffix(".tsv"), index=False, sep="\t")
    return path


def own(path, *more):
    return ("data=table", f"data.path={path}", "data.target=price", "data.ignore=[id]", *more)


def test_a_table_of_numbers_categories_and_gaps(point, houses, tmp_path):
    done = point.train(*own(houses), "epochs=20", "model.width=32", "name=houses")
    assert done.code == 0, done.out
    run = point.run("houses")
    last = [row for row in rows(run) if "val/rmse" in row][-1]
    spread = last["val/rmse"] / last["val/mse"] ** 0.5
    known = pandas.read_csv(houses).dropna(subset="price")
    assert spread == pytest.approx(known.price.std(), rel=0.05), "in the units of the target"
    assert last["val/r2"] > 0.7
    # Predictions undo the scaling of the training rows. A new town, a gap and another order of columns are fine.
    new = pandas.DataFrame({"town": ["Zug", "Bern", "Paris", None], "area": [100.0, 100.0, 100.0, None], "x": 1})
    new.to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "said.jsonl"
    done = point.tool("predict", run, tmp_path / "new.csv", "--out", out)
    assert done.code == 0, done.out
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"].rsplit(":", 1)[1] for row in said] == ["1", "2", "3", "4"]
    away = houses.rename(houses.with_name("away.csv"))  # only the run is left
    done = point.tool("export", run, "--format", "safetensors")
    assert done.code == 0, done.out
    away.rename(houses)
    assert said[0]["value"] == pytest.approx(150_000, rel=0.2)
    assert said[1]["value"] == pytest.approx(100_000, rel=0.2)
    assert all(np.isfinite(row["value"]) for row in said)
    new.drop(columns="area").to_csv(tmp_path / "less.csv", index=False)
    done = point.tool("predict", run, tmp_path / "less.csv")
    assert done.code == 2
    assert "lacks area" in done.last


@pytest.mark.parametrize("columns", ["area", "town"])
def test_a_table_of_numbers_only_or_categories_only_is_exported(point, houses, columns):
    """torch.export wrote a file that it could not read, if a table had no categories."""
    table = houses.with_name(f"{columns}.csv")
    pandas.read_csv(houses)[["price", columns]].to_csv(table, index=False)
    done = point.train(*own(table), "data.ignore=[]", *SHORT, f"name={columns}")
    assert done.code == 0, done.out
    done = point.tool("export", point.run(columns), "--format", "torch")
    assert done.code == 0, done.out
    assert "model.pt2: differs from the model by 0.0e+00" in done.out


def test_every_kind_of_file_gives_the_same_rows(point, houses):
    hashes, semicolons = set(), houses.with_name("semicolons.txt")
    pandas.read_csv(houses).to_csv(semicolons, sep=";", index=False)
    for path in (houses, houses.with_suffix(".tsv"), semicolons):
        done = point.train(*own(path), *SHORT, f"name={path.suffix[1:]}")
        assert done.code == 0, done.out
        hashes.add(result(point.run(path.suffix[1:]))["weights_sha256"])
    if pytest.importorskip("pyarrow", reason="Parquet needs pyarrow"):
        frame = pandas.read_csv(houses)
        lists = frame.assign(id=[[number, number] for number in range(len(frame))])
        lists.to_parquet(houses.with_suffix(".parquet"))  # `id` is not read
        done = point.train(*own(houses.with_suffix(".parquet")), *SHORT, "name=parquet")
        assert done.code == 0, done.out
        hashes.add(result(point.run("parquet"))["weights_sha256"])
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.target=prize",), "no column 'prize'. It has id, area, town, price."),
        (
            ("data.ignore=[]", "data.target=area", "data.kind=classification"),
            "are no classes",
        ),
        (("data.path=missing.csv",), "does not exist"),
        (("data.folds=400", "data.fold=399"), "data.folds=400 needs as many samples, not 312. Lower it."),
        (("data.folds=3", "data.fold=3"), "data.fold=3 of data.folds=3 is not possible"),
        (("data.val_fraction=0.6", "data.test_fraction=0.5"), "below 1 together"),
        (("data.kind=regression", "data.target=town"), "not of numbers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes(point, houses, overrides, said):
    done = point.train(*own(houses), *overrides, "name=wrong", "max_steps=2")
    assert done.code == 2, done.out
    assert said in done.last
    assert "Traceback" not in done.out
    assert not (point.project / "runs/wrong").exists()


def test_texts_that_tell_rows_apart_are_no_categories(point, tmp_path):
    frame = pandas.DataFrame({"name": [f"n{i}" for i in range(200)], "x": range(200), "y": [i % 2 for i in range(200)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    command = ("data=table", f"data.path={tmp_path / 't.csv'}", "data.target=y", "name=wrong", "max_steps=2")
    done = point.train(*command)
    assert done.code == 2
    assert "data.ignore=[name]" in done.last
    assert point.train(*command, "data.ignore=[name]", "batch_size=8").code == 0
