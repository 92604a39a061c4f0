"""Pictures and labels from CSV files and lists."""

import json
from pathlib import Path

import pytest
import torch


def named(data, split):
    """The labels of a split by the names of its pictures."""
    part = data.split(split)
    labels = part.labels.tolist()
    return {path.rpartition("pets/")[2]: label for path, label in zip(part.samples, labels, strict=True)}


def everything(data):
    return {name: label for split in data.splits for name, label in named(data, split).items()}


@pytest.fixture
def table(tmp_path):
    """`table(text, name)`: the path of a file of this text."""

    def table(text, name="labels.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return table


TWENTY = [f"{kind}/{number:02}.png" for kind in ("cat", "dog") for number in range(10)]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n" + "".join(f"{name},{name[:3]}\n" for name in TWENTY),
        "\ufefffile;age;label\n" + "".join(f"{name};3;{name[:3]}\n" for name in TWENTY),
        "".join(f"{name},{name[:3]}\n" for name in TWENTY),  # without a header
        "id,breed\n" + "".join(f"{name[:-4]},{name[:3]}\n" for name in TWENTY),  # without endings
        "".join(f"{name[:-4]}\t{name[:3]}\n" for name in TWENTY),  # without both
        '"name, of a file";label\n' + "".join(f"{name};{name[:3]}\n" for name in TWENTY),
    ],
)
def test_a_csv_file(picture_table, pets, table, text):
    root = pets()
    data = picture_table(root, train=table(text))
    assert data.info["class_names"] == ["cat", "dog"]
    assert everything(data) == {name: int(name.startswith("dog")) for name in TWENTY}
    assert sorted(named(data, "val").values()) == [0, 0, 1, 1]
    assert named(picture_table(root, train=table(text)), "val") == named(data, "val")
    Path(table(text)).rename(Path(root) / "labels.csv")  # it has moved with the pictures
    assert named(picture_table(root, train="gone/labels.csv"), "val") == named(data, "val")


def test_columns_in_any_order(picture_table, pets, table):
    """pandas writes its index first, without a name. The index may be the name of another picture."""
    root = pets()
    rows = [*reversed(list(enumerate(TWENTY)))]
    for text in (
        ",path,label\n" + "".join(f"{TWENTY[19 - n][:-4]},{name},{name[:3]}\n" for n, name in rows),
        "label,age,File\n" + "".join(f"{name[:3]},3,{name}\n" for _, name in rows),
        ",id,breed\n" + "".join(f"{n},{name},{name[:3]}\n" for n, name in rows),
        "Label,path,split\n" + "".join(f"{name[:3]},{name},{('Train', 'VALID')[n % 2]}\n" for n, name in rows),
    ):
        data = picture_table(root, train=table(text))
        assert everything(data) == {name: int(name.startswith("dog")) for name in TWENTY}


def test_a_list_with_numbers(engine, picture_table, pets, table):
    root = pets(12, "a b")
    lines = "".join(f"a b/{number:02}.png {number}\n" for number in range(12))
    train = table(lines, "train.txt")
    val = table("".join(f"a b/{number:02}.png {number}\n" for number in range(3)), "val.txt")
    with pytest.raises(engine("errors").UserError, match=r"name a b/00\.png twice"):
        picture_table(root, train=train, val=val)
    train = table("".join(f"a b/{number:02}.png {number - 3}\n" for number in range(3, 12)), "train.txt")
    data = picture_table(root, train=train, val=val)
    assert data.info["class_names"] == [str(number) for number in range(9)]
    assert named(data, "val") == {f"a b/{number:02}.png": number for number in range(3)}
    assert len(named(data, "train")) == 9


@pytest.mark.parametrize(
    ("name", "line", "options"),
    [
        ("a.txt", "my pic {0}.png,{1}\n", {}),  # a space in the name, not before the label
        ("a.txt", "my pic {0}.png {1}\n", {}),
        ("a.txt", "my pic {0}.png\t{1}\n", {}),
        ("a.txt", "my pic {0}.png {1},both\n", {"separator": ","}),
        ("a.txt", "my pic {0}.png,{1} both\n", {"separator": " "}),
        ("a.csv", "my pic {0}.png,{1};both;both\n", {"separator": ";"}),
        ("a.csv", "my pic {0}.png;{1},both,both\n", {"separator": ","}),
    ],
)
def test_lists_are_cut_at_the_right_place(picture_table, pets, table, name, line, options):
    """In front of the label, whatever is in the name or between several labels. The first line counts."""
    root = pets(8)
    for number in range(8):
        (root / f"cat/0{number}.png").rename(root / f"my pic {number}.png")
    data = picture_table(root, train=table("".join(line.format(n, "ab"[n % 2]) for n in range(8)), name), **options)
    several = bool(options)
    assert data.info["class_names"] == ["a", "b", "both"][: 3 if several else 2]
    rights = {f"my pic {n}.png": [n % 2 == 0, n % 2 == 1, True] if several else n % 2 for n in range(8)}
    assert everything(data) == rights


def test_the_first_line_is_no_header_if_its_picture_is_missing(engine, picture_table, pets, table):
    rows = "".join(f"{name},{name[:3]}\n" for name in TWENTY)
    for first in ("cat/77.png,cat\n", "cat/77,cat\n"):
        with pytest.raises(engine("errors").UserError, match="names cat/77"):
            picture_table(pets(), train=table(first + rows))


def test_the_classes_are_those_of_the_run(engine, picture_table, pets, table):
    root, text = pets(), "path,label\n" + "".join(f"{name},{name[:3]}\n" for name in TWENTY)
    info = {"shape": (1, 7, 8), "classes": 2, "class_names": ["cat", "dog"]}
    data = picture_table(root, train=table(text), info=info)
    assert data.split("train")[0][0].shape == (1, 7, 8)
    other = picture_table(root, train=table(text.replace(",dog", ",cow")), info=info)
    with pytest.raises(engine("errors").UserError, match="other classes than the run: cow, dog"):
        other.split("train")


def test_broken_pictures_of_a_table_are_listed(workspace, server, pets, table, tmp_path):
    root = pets()
    for name in ("cat/03.png", "dog/07.png"):
        (root / name).write_bytes(b"no picture")
    rows = "".join(f"{name},{name[:3]}\n" for name in TWENTY)
    options = ("data=picture_table", f"data.root={root}", f"data.train={table(rows)}", "workers=0")
    out, tool = tmp_path / "broken.txt", workspace / "digits/__main__.py"
    done = server.run(tool, "check-data", *options, "--out", str(out), cwd=workspace)
    assert done.code == 1, done.out
    listed = {line.rpartition("pets/")[2] for line in out.read_text().splitlines()}
    assert listed == {"cat/03.png", "dog/07.png"}


def test_a_column_of_splits_and_shares_by_class(picture_table, pets, table):
    root = pets()
    rows = "".join(f"{name},{name[:3]},{'test' if name.endswith('9.png') else 'train'}\n" for name in TWENTY)
    data = picture_table(root, train=table("path,label,split\n" + rows), val_fraction=0.3)
    assert named(data, "test") == {"cat/09.png": 0, "dog/09.png": 1}
    assert sorted(named(data, "val").values()) == [0, 0, 0, 1, 1, 1]
    assert len(everything(data)) == 20


SEVERAL = {
    "separator": "path,tags\n" + "".join(f"{n},{n[:3]}{'|small' if '0' in n[4:] else ''}\n" for n in TWENTY),
    "label_columns": "path,cat,dog,small\n"
    + "".join(f"{n},{int(n[:3] == 'cat')},{int(n[:3] == 'dog')},{int('0' in n[4:])}\n" for n in TWENTY),
}


@pytest.mark.parametrize(("key", "value"), [("separator", "|"), ("label_columns", ["cat", "dog", "small"])])
def test_several_labels(picture_table, pets, table, key, value):
    data = picture_table(pets(), train=table(SEVERAL[key]), **{key: value})
    assert data.info["class_names"] == ["cat", "dog", "small"]
    assert data.info["multi_label"] is True
    for name, label in everything(data).items():
        assert label == [name[:3] == "cat", name[:3] == "dog", "0" in name[4:]], name
    image, label = data.split("train")[0]
    assert label.dtype == torch.float32
    assert image.shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("text", "more", "sentence"),
    [
        ("path,label\ncat/00.png,cat\ncat/77.png,cat\n", {}, "names cat/77.png, which is not in"),
        ("path,label\ncat/00.png,\n", {}, "which lacks labels"),
        ("path,a,b\ncat/00.png,1,0\n", {}, "Name the columns of the labels"),
        ("path,a,b\ncat/00.png,1,7\n", {"label_columns": ["a", "b"]}, "cat/00.png,1,7"),
        ("path,label\ncat/00.png,a,b\n", {}, "cat/00.png,a,b"),
        ("", {}, "Name the columns"),
        ("path,label\n" + "".join(f"{n},cat\n" for n in TWENTY), {}, "All pictures have the class 'cat'"),
        ("path,label\ncat/00.png,cat\ncat/00.png,dog\n", {}, "name cat/00.png twice"),
    ],
)
def test_mistakes_are_one_sentence(engine, picture_table, pets, table, text, more, sentence):
    with pytest.raises(engine("errors").UserError, match=sentence) as error:
        picture_table(pets(), train=table(text), **more)
    assert "\n" not in str(error.value)


def test_labels_count_for_the_fingerprint(picture_table, pets, table):
    root = pets()
    before = picture_table(root, train=table(SEVERAL["separator"]), separator="|").fingerprint()
    changed = SEVERAL["separator"].replace("cat/03.png,cat", "cat/03.png,dog")
    assert picture_table(root, train=table(changed), separator="|").fingerprint() != before


def test_training_with_several_labels(train, workspace, server, picture_table, pets, table, tmp_path):
    """Metrics are those of scikit-learn, and `predict` names all likely labels."""
    root = pets()
    options = ("experiment=multilabel", f"data.root={root}", f"data.train={table(SEVERAL['label_columns'])}")
    options = (*options, "data.label_columns=[cat,dog,small]", "model=mlp", "batch_size=8", "epochs=2", "workers=0")
    done = train(*options, "logger=none")
    assert done.code == 0, done.out
    (run,) = (workspace / "runs/multilabel").iterdir()
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "val/map" in line][-1]
    out = tmp_path / "out.jsonl"
    tool = workspace / "digits/__main__.py"
    done = server.run(tool, "predict", str(run), str(root), "--out", str(out), "--checkpoint", "last", cwd=workspace)
    assert done.code == 0, done.out
    rows = {row["path"].rpartition("pets/")[2]: row for row in map(json.loads, out.read_text().splitlines())}
    for row in rows.values():
        assert row["labels"] == "|".join(name for name, share in row["probabilities"].items() if share >= 0.5)
    from sklearn.metrics import average_precision_score, f1_score

    done = server.run(tool, "evaluate", str(run), "--checkpoint", "last", cwd=workspace)
    assert done.code == 0, done.out
    data = picture_table(root, train=table(SEVERAL["label_columns"]), label_columns=["cat", "dog", "small"])
    truth = list(named(data, "val").values())
    scores = [list(rows[name]["probabilities"].values()) for name in named(data, "val")]
    assert last["val/map"] == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-6)
    likely = [[score >= 0.5 for score in row] for row in scores]
    assert last["val/f1"] == pytest.approx(f1_score(truth, likely, average="macro", zero_division=0), abs=1e-6)
    done = server.run(tool, "reproduce", str(run), "--stop-at", "1", "--workers", "1", cwd=workspace)
    assert done.code == 0, done.out
    assert done.last.startswith("identical")
    done = train(*(o for o in options if not o.startswith("experiment")), "data=picture_table", "loss=bce")
    assert (done.code, done.out.count("\n")) == (2, 1), done.out
    assert "experiment=multilabel" in done.last
