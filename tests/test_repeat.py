"""`ostinato reproduce`: a run in one file is checked and repeated, and a hostile file does nothing."""

import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from helpers import packing
from helpers.runs import logged, rows, the_run
from helpers.template import ROOT

from ostinato import __main__, repeat


@pytest.fixture
def ostinato(tmp_path, monkeypatch, capfd):
    """`ostinato("reproduce", …)` in an empty folder: the exit code and the output."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def ostinato(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        code = __main__.main(["reproduce", *map(str, words)])
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return ostinato


@pytest.fixture
def file(tmp_path):
    """`file(change)`: a small packed run; `change(files, manifest, run)` changes it before it is written."""

    def file(change=lambda files, manifest, run: None) -> Path:
        parts = packing.parts()
        change(*parts)
        return packing.write(tmp_path / "small.run.zip", *parts)

    return file


# ---------------------------------------------------------------- --check


def test_a_good_file_agrees(ostinato, file, tmp_path):
    assert ostinato(file(), "--check") == (0, f"{tmp_path}/small.run.zip agrees: " + AGREES)
    assert list(Path().iterdir()) == []


def test_a_file_of_release_0_3_agrees(ostinato):
    code, out = ostinato(ROOT / "tests/run_files/format-1.run.zip", "--check")
    assert code == 0, out


def test_a_reader_that_has_gone(file):
    """As in `ostinato reproduce FILE --check | head -0`."""
    end, pipe = os.pipe()
    os.close(end)
    command = [sys.executable, "-u", "-m", "ostinato", "reproduce", str(file()), "--check"]
    done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (1, b"")


AGREES = "8 files, the config, the source, the values and the claims.\n"


def claim(key, value):
    """A claim that is changed everywhere but in the values."""

    def change(files, manifest, run):
        manifest["result"] = run["claims"] = {**run["claims"], key: value}

    return change


CONTRADICTIONS = {
    "the claim last=0.5 is not in metrics.jsonl, which has 0.25": claim("last", 0.5),
    "the claim best=0.51 is not in metrics.jsonl, which has 0.5": claim("best", 0.51),
    "the claim steps=5 is not in metrics.jsonl, which has 4": claim("steps", 5),
    "the weights of step 4 are not those of the claims": claim("weights_sha256", "d" * 64),
    "the values up to step 2 are not those of its checkpoint": lambda files, manifest, run: files.update(
        {"metrics.jsonl": files["metrics.jsonl"].replace("0.75", "0.7500000000000001")}
    ),
    "source/train.py differs from what manifest.json records": lambda files, manifest, run: files.update(
        {"source/train.py": "print('other')\n"}
    ),
    "source/sitecustomize.py differs from what": lambda files, manifest, run: files.update(
        {"source/sitecustomize.py": ""}
    ),
    "source/digits/__main__.py differs from what": lambda files, manifest, run: files.pop("source/digits/__main__.py"),
    "requirements.txt has numpy==2.1, but manifest.json does not": lambda files, manifest, run: files.update(
        {"requirements.txt": "numpy==2.1\n"}
    ),
    "command is ['train.py', 'lr=0.1'] in one place": lambda files, manifest, run: manifest.update(command=["other"]),
    "status is 'finished' in one place": lambda files, manifest, run: manifest.update(status="running"),
    "data.fingerprint is 'f' in one place": lambda files, manifest, run: manifest["fingerprint"].update(data="g"),
    "data._target_ is 'digits.data.rings.Rings' in one": lambda files, manifest, run: files.update(
        {"config.yaml": packing.CONFIG.replace("Rings", "Others")}
    ),
    "seeds has other values for the seed 0 than the claims": lambda files, manifest, run: run.update(
        seeds=[{"seed": 0, "last": 0.75, "best": 0.75}]
    ),
    "checkpoints/step-00000004.pt is missing": lambda files, manifest, run: run["checkpoints"][1].update(
        file="checkpoints/step-00000004.pt"
    ),
    "README.txt differs from what run.json records": lambda files, manifest, run: run.update(
        files={name: packing.sha256(text) for name, text in {**files, "README.txt": ""}.items()}
        | {"manifest.json": packing.sha256(json.dumps(manifest))}
    ),
    "run.json does not list README.txt": lambda files, manifest, run: run.update(
        files={name: packing.sha256(text) for name, text in files.items() if name != "README.txt"}
        | {"manifest.json": packing.sha256(json.dumps(manifest))}
    ),
}


@pytest.mark.parametrize("sentence", CONTRADICTIONS)
def test_what_does_not_agree_is_named(ostinato, file, sentence):
    code, out = ostinato(file(CONTRADICTIONS[sentence]), "--check")
    assert code == 1
    assert [line for line in out.splitlines() if sentence in line], out


def test_a_file_whose_secrets_were_replaced_may_differ(ostinato, file):
    def change(files, manifest, run):
        files["source/train.py"] = "[left out]"
        run["left_out"] = {"source/train.py": "holds a secret"}

    assert ostinato(file(change), "--check")[0] == 0


def with_data(files, manifest, run):
    run["data"] |= {"files": {"a/b.txt": packing.sha256("one")}, "needs": "root"}


def test_the_files_of_the_data(ostinato, file, tmp_path):
    path, place = file(with_data), tmp_path / "data/a/b.txt"
    place.parent.mkdir(parents=True)
    place.write_text("one")
    assert ostinato(path, "--check", "--data", tmp_path / "data")[0] == 0
    place.write_text("two")
    code, out = ostinato(path, "--check", "--data", tmp_path / "data")
    assert (code, out.splitlines()) == (1, [f"{path}: {place} differs from the file of the run"])
    alone = tmp_path / "alone.txt"
    alone.write_text("one")
    assert ostinato(path, "--check", "--data", alone)[0] == 0, "a file alone may have another name here"
    place.write_text("one")
    for name in (".hidden", "@eaDir/x", "Thumbs.db"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    assert ostinato(path, "--check", "--data", tmp_path / "data")[0] == 0, "files of tools do not count"
    (more := tmp_path / "data/a/c.txt").touch()
    code, out = ostinato(path, "--check", "--data", tmp_path / "data")
    assert (code, out.splitlines()) == (1, [f"{path}: {more} is not among the files of the run"])
    place.unlink()
    assert "a/b.txt is missing in" in ostinato(path, "--check", "--data", tmp_path / "data")[1]
    packed = tmp_path / "small.run.zip"

    def change(files, manifest, run):
        with_data(files, manifest, run)
        files["data/a/b.txt"] = "three"
        run["data"] |= {"place": "data", "packed": True}

    file(change)
    code, out = ostinato(packed, "--check")
    assert (code, out.splitlines()) == (1, [f"{packed}: data/a/b.txt differs from what run.json records"])


def test_a_table_of_checks(ostinato, file, tmp_path):
    good = file().rename(tmp_path / "good.run.zip")
    bad = file(claim("last", 0.5)).rename(tmp_path / "bad.run.zip")
    (half := tmp_path / "half.run.zip").write_bytes(good.read_bytes()[:500])
    code, out = ostinato(half, good, bad, "--check", "--table")
    assert code == 1
    table = [line.split() for line in out.splitlines()[-3:]]
    assert table == [
        ["half.run.zip", "-", "-", "-", "-", "-", "cannot", "be", "read"],
        ["good", "val/acc", "0.5", "-", "0.25", "-", "agrees"],
        ["bad", "val/acc", "0.5", "-", "0.5", "-", "does", "not", "agree"],
    ]


def test_usual_names_of_files_are_known(ostinato, file):
    """A folder of the author's report, spaces as macOS writes them, an emoji of several parts, a Python from git."""

    def change(files, manifest, run):
        with_data(files, manifest, run)
        files |= {"source/report/main.tex": "x", "data/Bild 9.41\u202fAM.png": "x", "data/👩\u200d🔬.png": "x"}
        manifest["source"]["report/main.tex"] = packing.sha256("x")
        run["python"] = manifest["fingerprint"]["versions"]["python"] = "3.15.0a1+"

    code, out = ostinato(file(change), "--check")
    assert (code, " agrees: " in out) == (0, True), out


# ---------------------------------------------------------------- hostile files


def put(name, text="x"):
    return lambda files, manifest, run: files.update({name: text})


def told(**values):
    return lambda files, manifest, run: run.update(values)


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 1}]\n" for n in range(9))
HOSTILE = {
    "a name that leaves the folder": (put("source/../../x"), "it holds 'source/../../x'"),
    "an absolute name": (put("/tmp/x"), "it holds '/tmp/x'"),
    "an absolute name below": (put("source//tmp/x"), "it holds 'source//tmp/x'"),
    "a backslash": (put("source/..\\x"), "a name that no packed run has"),
    "a folder": (put("source/x/"), "a name that no packed run has"),
    "a name that a terminal obeys": (put("source/\x1b[2Jx"), "it holds 'source/\\x1b[2Jx'"),
    "a file beside": (put("setup.py"), "it holds 'setup.py'"),
    "a run of its own": (put("source/runs/a/b/manifest.json"), "a name that no packed run has"),
    "a line break": (put("source/a\u2028b"), "a name that no packed run has"),
    "half a character": (put("data/\x9f"), "a name that no packed run has"),
    "the report": (put("source/report-of-the-run/report.json"), "a name that no packed run has"),
    "an environment": (put("source/.venv/bin/python"), "a name that no packed run has"),
    "a repository": (put("source/.git/config"), "a name that no packed run has"),
    "a newer format": (told(format=2), "has the format 2, and this version reads 1. Take a newer one"),
    "no format": (told(format="1"), "'format'"),
    "a package that is code": (told(package="os; rm"), "a wrong value or none at 'package'"),
    "a package that is an option": (told(package="-c"), "a wrong value or none at 'package'"),
    "a run outside": (told(name="../../x"), "'name'"),
    "an absolute run": (told(name="/x"), "'name'"),
    "a Python that is an option": (told(python="--help"), "a wrong value or none at 'python'"),
    "a command that is no list": (told(command="train.py"), "a wrong value or none at 'command'"),
    "claims without steps": (told(claims={}), "a wrong value or none at 'claims'"),
    "data that leave": (told(data={**packing.DATA, "needs": "root", "place": "data/../.."}), "'data'"),
    "another key of the data": (told(data={**packing.DATA, "needs": "x=1 data.root"}), "'data'"),
    "an option of pip": (put("requirements.txt", "-r https://x/y.txt\n"), "the line '-r https://x/y.txt' instead of"),
    "an address": (put("requirements.txt", "a @ https://x/a.whl\n"), "instead of NAME==VERSION"),
    "an option behind a version": (put("requirements.txt", "a==1 --index-url=x\n"), "instead of NAME==VERSION"),
    "a marker": (put("requirements.txt", "a==1; python_version > '3'\n"), "instead of NAME==VERSION"),
    "a path": (put("requirements.txt", "./source\n"), "instead of NAME==VERSION"),
    "YAML that fills the memory": (put("config.yaml", BOMB), "it is too large or repeats parts by name"),
    "YAML that makes objects": (put("config.yaml", "!!python/object/apply:os.getcwd []"), "config.yaml cannot be read"),
    "a config that is none": (put("config.yaml", "3"), "config.yaml has a wrong value or none at 'name'"),
    "a manifest of another shape": (lambda f, manifest, r: manifest.update(result=3), "at 'result'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(ostinato, file, name):
    change, sentence = HOSTILE[name]
    path = file(change)
    for words in ([path, "--check"], [path, "--trust", "--here"]):
        code, out = ostinato(*words)
        assert (code, sentence in out, len(out.splitlines())) == (2, True, 1), out
        assert "\x1b" not in out
    assert list(Path().iterdir()) == []


def entry(name="source/x", mode=stat.S_IFREG | 0o644, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.flag_bits = mode << 16, flags
    return info


def append(*entries):
    """Add entries that ZipFile would not write by itself."""

    def append(path):
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for info in entries:
                archive.writestr(info, "/etc/passwd")

    return append


def bomb(path):
    """Append gigabytes of zeros to the source."""
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("source/0", "w") as to,
    ):
        for _ in range(40):
            to.write(bytes(2**23))


def larger(path):
    """Let the directory say that data are 8 GiB."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry("data/x"), "x")
        archive.infolist()[-1].file_size = 2**33
        archive._didModify = True


BROKEN = {
    "a link": (append(entry(mode=stat.S_IFLNK | 0o777)), "source/x is a link, a device or encrypted"),
    "a device": (append(entry(mode=stat.S_IFCHR | 0o666)), "source/x is a link, a device or encrypted"),
    "one name twice": (append(entry(), entry()), "two of its files have one name"),
    "a bomb": (bomb, "source/0 is too large"),
    "a bomb among the data": (larger, "it would unpack to 8 GiB"),
    "a half file": (lambda path: os.truncate(path, path.stat().st_size // 2), "is not a whole zip file"),
    "an empty file": (lambda path: os.truncate(path, 0), "is not a whole zip file"),
    "text": (lambda path: path.write_text("run"), "is not a whole zip file"),
    "no file": (lambda path: path.unlink(), "does not exist. Name a packed run, NAME.run.zip."),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder. Pack the run first: python -m PACKAGE pack"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(ostinato, file, name):
    change, sentence = BROKEN[name]
    path = file()
    change(path)
    code, out = ostinato(path, "--trust", "--here")
    assert (code, sentence in out, len(out.splitlines())) == (2, True, 1), out
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{}", "[" * 100_000, '{"format": 1' + "0" * 5_000 + "}"])
def test_any_json_is_looked_at(ostinato, tmp_path, text):
    path = tmp_path / "odd.run.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run.json", text)
    code, out = ostinato(path, "--check")
    assert (code, len(out.splitlines())) == (2, 1), out


# ---------------------------------------------------------------- before anything runs


def test_nothing_runs_before_somebody_agrees(ostinato, file, monkeypatch):
    path = file()
    code, out = ostinato(path, "--here")
    assert code == 2
    for text in ("best 0.5, last 0.25", "https://example.org/small.git", "c" * 40, "with changes", "train.py lr=0.1",
                 "2 files", "torch 2.15.0+cpu and 1 other packages", "Nobody can be asked here"):  # fmt: skip
        assert text in out
    assert "resumed" not in out
    longer = file(lambda files, manifest, run: manifest.update(resumed=[{"step": 2, "extended": {"epochs": 4}}]))
    said = "\n  resumed      with epochs=4 after step 2: from the first step, values may differ\n"
    assert said in ostinato(longer, "--here")[1]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in ("", "n", "no", "yes please"):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert ostinato(path, "--here")[1].endswith("Nothing was run.\n")
    assert list(Path().iterdir()) == []


MISTAKES = {
    "a step that the run lacks": (["--steps", "5"], "--steps 5 is outside the run. Name steps from 1 to 4."),
    "steps without a value": (["--steps", "1"], "--steps 1 is before the first logged value. Take 2 or more."),
    "a checkpoint that is not packed": (["--from-checkpoint", "2"], "has no checkpoint of step 2. It has: none"),
    "data that the run makes": (["--data", "."], "The run makes its data itself. Leave --data out."),
    "data that are gone": (["--check", "--data", "nowhere"], "--data nowhere does not exist."),
    "a Python that is none": (["--python", "nowhere"], "nowhere is not a Python with torch."),
    "steps of a check": (["--check", "--steps", "4"], "--check trains nothing. Leave --steps out."),
    "a folder that exists": (["--out", ".."], "exists. Name a new folder with --out FOLDER."),
    "a folder below a file": (
        ["--out", "../small.run.zip/x/y"],
        "small.run.zip is not a folder that can be written to.",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(ostinato, file, name):
    words, sentence = MISTAKES[name]
    code, out = ostinato(file(), "--trust", *([] if "--python" in words else ["--here"]), *words)
    assert code == 2
    assert sentence in out
    assert list(Path().iterdir()) == []


def test_two_files_of_one_name(ostinato, file):
    path = file()
    assert ostinato(path, path, "--table", "--trust", "--here") == (
        2,
        "Two files have the name small. Rename one, or repeat them one by one.\n",
    )


def test_data_that_the_file_lacks_are_asked_for(ostinato, file, tmp_path, monkeypatch):
    def change(files, manifest, run):
        files["config.yaml"] += "  root: pictures\n"
        run["data"]["needs"] = "root"

    code, out = ostinato(file(change), "--trust", "--here")
    assert (code, out) == (
        2,
        f"{tmp_path}/small.run.zip does not hold its data (data.root was pictures). Name their place: --data PATH.\n",
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "nowhere")
    assert ostinato(file(change), "--here") == (2, "nowhere does not exist. Name their place: --data PATH.\n")


def places(files, manifest, run):
    """A run of files whose hashes are known."""
    files["config.yaml"] += "  root: pictures\n  path: me/pictures\ninit_from: null\n"
    run["data"] |= {"needs": "root", "files": {"a/b.txt": packing.sha256("one")}}


@pytest.mark.parametrize(
    ("needs", "given", "sentence"),
    [
        ("root", "nowhere", "--data nowhere does not exist."),
        ("root", "good/a/b.txt", "good/a/b.txt is a file, but data.root is a folder."),
        ("root", "bad", "bad/a/b.txt differs from the file of the run. Name their place"),
        ("path", "empty", "a/b.txt is missing in"),
        ("path", "me/other", "--data me/other does not exist."),
        ("root", "good", None),
        ("path", "me/pictures", None),
    ],
)
def test_wrong_data_are_refused_before_anything_is_built(ostinato, file, monkeypatch, needs, given, sentence):
    for name, text in (("good", "one"), ("bad", "two"), ("empty", None)):
        (Path(name) / "a").mkdir(parents=True)
        if text:
            (Path(name) / "a/b.txt").write_text(text)
    path = file(lambda *parts: (places(*parts), parts[2]["data"].update(needs=needs)))
    begun = []
    monkeypatch.setattr(repeat, "_repeat", lambda packed, folder, place, *rest: begun.append(place) or 0)
    code, out = ostinato(path, "--trust", "--here", "--data", given)
    if sentence is None:
        assert (code, begun) == (0, [[f"data.root={Path('good').absolute()}"] if needs == "root" else []]), out
    else:
        assert (code, begun, sentence in out) == (2, [], True), out


def test_data_and_weights_at_a_relative_path(ostinato, file, monkeypatch):
    """Data may be in the source. Weights to start from are nowhere."""

    def change(files, manifest, run, start="null"):
        places(files, manifest, run)
        files["config.yaml"] = files["config.yaml"].replace("init_from: null", f"init_from: {start}")
        files["source/pictures/a/b.txt"] = "one"

    begun = []
    monkeypatch.setattr(repeat, "_repeat", lambda packed, folder, place, *rest: begun.append(place) or 0)
    assert ostinato(file(change), "--trust", "--here")[0] == 0
    code, out = ostinato(file(lambda *parts: change(*parts, "runs/a/best.pt")), "--trust", "--here")
    assert (code, begun) == (2, [[]])
    assert "began with the weights of runs/a/best.pt, which it does not hold." in out


def test_a_failure_before_training_leaves_no_folder(ostinato, file, monkeypatch):
    (fails := Path("../uv")).write_text("#!/bin/sh\nexit 1\n")
    fails.chmod(0o755)
    monkeypatch.setenv("UV", str(fails.absolute()))
    code, out = ostinato(file(), "--trust")
    assert code == 1
    assert "The environment of the run cannot be built here" in out

    def change(files, manifest, run):
        run["files"] = {name: "0" * 64 for name in (*files, "manifest.json")}

    assert "differs from what run.json records" in ostinato(file(change), "--trust", "--here")[1]
    assert list(Path().iterdir()) == []


def test_the_file_is_unpacked_as_it_was(ostinato, file):
    """Its `digits/__main__.py` stands for the engine, and notes how it was called."""

    def change(files, manifest, run):
        text = "import json, os, sys; json.dump([sys.argv, os.getcwd()], open('called.json', 'w')); sys.exit(76)"
        files["source/digits/__main__.py"] = text
        files["source/digits/engine/tools/verdict.py"] = ""
        files["config.yaml"] += "allowed_packages: [others, '--x']\n"
        with_data(files, manifest, run)
        files["data/a/b.txt"] = "one"
        run["data"] |= {"place": "data", "packed": True}

    code, out = ostinato(file(change), "--trust", "--here", "--steps", "3", "--seeds", "2", "--device", "cpu")
    assert code == 76, out
    folder = Path("small-repeated").absolute()
    run = folder / "runs/small/2026-11-29_01-02-03"
    words, place = json.loads((folder / "called.json").read_text())
    data = folder / "data-of-the-run"
    assert words[1:] == [
        *("reproduce", str(run), f"data.root={data}", "--report", str(folder / "report-of-the-run"), "--steps", "3"),
        *("--seeds", "2", "--device", "cpu", "--allow", "others"),
    ]
    assert place == str(folder)
    assert (data / "a/b.txt").read_text() == "one"
    names = {"README.txt", "config.yaml", "manifest.json", "metrics.jsonl", "requirements.txt", "run.json"}
    assert {path.name for path in run.iterdir()} == names
    assert (folder / "train.py").read_text() == packing.SOURCE["train.py"]


# ---------------------------------------------------------------- the verdict


@pytest.fixture
def comparison(engine):
    verdict = engine("tools.verdict")

    def comparison(claimed, repeated, other=None, results=(), tag="train/loss"):
        """Values of steps 1, 2, 3 …"""
        runs = [
            v and {(step, tag, step - 1): value for step, value in enumerate(v, 1)} for v in (claimed, repeated, other)
        ]
        return verdict.Comparison(*runs[:2], list(results), "val/acc", runs[2])

    return comparison


@pytest.mark.parametrize(
    ("claimed", "repeated", "other", "verdict"),
    [
        ((1.0, 0.5), (1.0, 0.5), None, "identical"),
        ((1.0, float("nan")), (1.0, float("nan")), None, "identical"),
        ((1.0, float("nan")), (1.0, 0.5), (1.0, 0.51), "different"),
        ((1.0, 0.5), (1.0, 0.51), None, "different"),  # nothing was measured
        ((1.0, 0.5), (1.0, 0.51), (1.0, 0.51), "different"),  # the second repetition says nothing
        ((1.0, 0.5), (1.0, 0.51), (1.0, 0.5111), "the same within rounding"),  # 0.01 is 9.1 times 0.0011
        ((1.0, 0.5), (1.0, 0.511), (1.0, 0.512), "different"),  # 0.011 is 11 times 0.001
        ((1.0, 0.5, 0.25), (1.001, 0.5, 0.25), (1.001, 0.5, 0.35), "different"),  # rounding moves it much later
        ((1.0, 0.5, 0.25), (1.0, 0.501, 0.25), (1.0, 0.501, 0.35), "the same within rounding"),  # a little later
        ((1.0, 0.5, 0.25), (1.0, 0.5, 0.26), (1.0, 0.501, 0.26), "the same within rounding"),  # it moved earlier
        ((1.0, 1e-9), (1.0, 2e-9), (1.0, 2.5e-9), "the same within rounding"),  # far below 1 in float32
    ],
)
def test_the_verdict(comparison, claimed, repeated, other, verdict):
    assert comparison(claimed, repeated, other).verdict == verdict


def test_a_count_jumps_when_the_loss_has_moved(engine):
    """The accuracy of the claim is one jump of 0.0019 off. No accuracy of the second repetition has moved."""
    verdict = engine("tools.verdict")

    def compared(loss):
        claimed = {(1, "val/acc", 0): 0.5, (1, "val/loss", 0): 2.0}
        repeated = {**claimed, (1, "val/acc", 0): 0.5019}
        return verdict.Comparison(claimed, repeated, [], "val/acc", {**repeated, (1, "val/loss", 0): loss})

    assert compared(2.0008).spreads[1, "val/acc", 0] == pytest.approx(0.5 * 0.0004)  # 0.0004 of the loss
    assert compared(2.0008).verdict == "the same within rounding"  # 0.0019 is 9.5 times 0.0002
    assert compared(2.0007).verdict == "different"


def test_how_far_ahead_rounding_counts(engine):
    """The second repetition moves at step 108. After a checkpoint of step 100, that is twice step 104."""
    claimed = {(step, "train/loss", 0): 1.0 for step in range(101, 111)}
    other = claimed | {(108, "train/loss", 0): 2.0}
    compared = engine("tools.verdict").Comparison(claimed, claimed, [], "val/acc", other, begin=100)
    assert [step for (step, *_), spread in compared.spreads.items() if spread == 1.0] == [*range(104, 111)]


@pytest.mark.parametrize("tag", ["lr/all", "epoch"])
def test_a_learning_rate_does_not_round_with_the_loss(engine, tag):
    """The run had another schedule. Only what moves this value itself counts for it."""
    verdict = engine("tools.verdict")
    claimed = {(1, "train/loss", 0): 2.0, (1, tag, 0): 0.5}
    other = {(1, "train/loss", 0): 2.5, (1, tag, 0): 0.5}
    near = {(1, tag, 0): 0.5000001}
    compared = verdict.Comparison(claimed, claimed | near, [], "val/acc", other | near)
    assert compared.verdict == "the same within rounding"
    far = {(1, tag, 0): 0.51}
    assert verdict.Comparison(claimed, claimed | far, [], "val/acc", other | far).verdict == "different"


def test_results_that_differ_alone(comparison):
    equal = (1.0, 0.5), (1.0, 0.5), (1.0, 0.501)
    assert comparison(*equal, results=[("weights_sha256 at the end", "a", "b")]).verdict == "different"
    near = (1.0, 0.5), (1.0, 0.501), (1.0, 0.502)
    assert comparison(*near, results=[("weights_sha256 at the end", "a", "b")]).verdict == "the same within rounding"
    assert comparison(*near, results=[("steps at the end", 2, 3)]).verdict == "different"
    assert comparison(*near, results=[("best at the end", 0.9, 0.5)]).verdict == "different"
    accuracy = comparison(*near, results=[("best at the end", 0.5, 0.505)], tag="val/acc")
    assert accuracy.verdict == "the same within rounding"  # within 10 times 0.001


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([0.4, 0.6], "That is within the deviation over 2 seeds: 0.5 ± 0.14."),  # the root of 0.02
        ([0.5, 0.52], "That is beyond the deviation over 2 seeds: 0.51 ± 0.014."),  # the root of 0.0002
        ([0.5], "The deviation over seeds is not known."),
    ],
)
def test_the_end_against_the_deviation_over_seeds(engine, comparison, tmp_path, seeds, sentence):
    """The ends are 0.1 apart."""
    compared = comparison((0.75, 0.5), (0.75, 0.6), (0.75, 0.7), tag="val/acc")
    about = {
        "run": "a",
        "repetition": "b",
        "steps": (0, 2),
        "rounding": "2 threads",
        "reasons": ["torch 1 → 2"],
        "hashes": 0,
    }
    assert (
        engine("tools.verdict").write_report(tmp_path / "report", compared, about, seeds) == "the same within rounding"
    )
    lines = (tmp_path / "report/report.txt").read_text().splitlines()
    assert lines[0] == "the same within rounding: steps 1 to 2 of a"
    assert "  at the end, val/acc is 0.5, and again 0.6" in lines
    assert any(line.strip().startswith(sentence) for line in lines), lines
    assert lines[-1] == "  torch 1 → 2"
    assert json.loads((tmp_path / "report/report.json").read_text())["first_difference"]["step"] == 2
    with pytest.raises(engine("errors").UserError, match=r"Cannot write to .*report.txt"):
        engine("tools.verdict").write_report(tmp_path / "report/report.txt", compared, about, seeds)


# ---------------------------------------------------------------- whole runs

SHORT = ("epochs=2", "limit_train_batches=4", "log.every=1", "logger=none", "log.curves=false", "model=mlp",
         "keep_last=3", "workers=0")  # fmt: skip


@pytest.fixture(scope="module")
def packed(project, server, tmp_path_factory) -> Path:
    """A run of two epochs with four steps each, packed with its checkpoints."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("packed") / "digits")
    assert server.run(folder / "train.py", *SHORT).code == 0
    done = server.run(folder / "digits/__main__.py", "pack", str(the_run(folder)), "--weights")
    assert done.code == 0, done.out
    (path,) = folder.rglob("*.run.zip")
    return path.rename(path.with_name("run.run.zip"))


@pytest.fixture
def from_server(server, monkeypatch):
    """The rebuilt project's command comes from a process that has imported torch."""

    def run(command, folder, **env):
        done = server.run(folder / "digits/__main__.py", *command[3:], cwd=folder)
        print(done.out)
        return done.code

    monkeypatch.setattr(repeat, "_run", run)


def report(folder="run-repeated") -> dict:
    return json.loads((Path(folder) / "report-of-the-run/report.json").read_text())


@pytest.mark.xdist_group("packed")
def test_a_run_of_another_person_is_repeated(ostinato, packed):
    code, out = ostinato(packed, "--check")
    assert code == 0, out
    code, out = ostinato(packed, "--here", "--trust")
    assert code == 0, out
    told = report()
    assert (told["verdict"], told["steps"], told["differing"], told["hashes"]) == ("identical", [0, 8], 0, 2)
    assert told["repeated"] == told["claimed"]
    assert told["compared"] > 30
    assert (
        (Path("run-repeated") / "report-of-the-run/report.txt")
        .read_text()
        .startswith("identical: steps 1 to 8 of runs/default/")
    )
    assert (Path("run-repeated") / "report-of-the-run/report.png").read_bytes().startswith(b"\x89PNG")
    code, out = ostinato(packed, "--here", "--trust")
    assert (code, "run-repeated exists" in out) == (2, True)


@pytest.mark.xdist_group("packed")
def test_a_part_of_a_run_from_a_checkpoint_on(ostinato, packed, from_server):
    """With its row in a table."""
    code, out = ostinato(packed, "--here", "--trust", "--from-checkpoint", "4", "--steps", "6", "--table")
    assert code == 0, out
    told = report("table-repeated/run")
    assert (told["verdict"], told["steps"], told["repeated"]) == ("identical", [4, 6], None)
    steps = {row["step"] for row in rows(next(Path("table-repeated/run/runs/default/reproduced").iterdir()))}
    assert steps == {1, 2, 3, 4, 5, 6}
    assert out.splitlines()[-1].split()[-1] == "identical"
    (row,) = json.loads(Path("table-repeated/table.json").read_text())
    assert (row["name"], row["verdict"], row["claimed"]) == ("run", "identical", told["claimed"])


@pytest.mark.xdist_group("packed")
def test_a_changed_line_of_the_source_makes_another_run(ostinato, packed, from_server, tmp_path):
    def change(files):
        text = files["source/digits/task.py"].decode()
        assert '"loss": ' in text
        files["source/digits/task.py"] = text.replace('"loss": ', '"loss": 1.001 * ').encode()
        manifest = json.loads(files["manifest.json"])
        environment = manifest["environment"]
        environment["cpu"]["capability"], environment["packages"]["tqdm"] = "AVX1024", "0.0.1"
        environment["torch"] = environment["torch"].replace("CPU capability usage: ", "CPU capability usage: AVX1024 ")
        environment["variables"]["MKL_CBWR"] = "COMPATIBLE"
        files["manifest.json"] = json.dumps(manifest).encode()

    path = packing.repacked(packed, tmp_path / "run.run.zip", change)
    code, out = ostinato(path, "--here", "--trust")
    assert code == 1, out
    assert "does not agree: source/digits/task.py differs from" in out
    told = report()
    assert told["verdict"] == "different"
    assert told["first_difference"]["step"] == 1
    assert told["first_difference"]["times_the_spread"] > 10
    assert "different: first at step 1 in train/" in out
    assert "digits/task.py has changed" in told["reasons"]
    assert {f"tqdm 0.0.1 → {importlib.metadata.version('tqdm')}", "MKL_CBWR COMPATIBLE → None"} < set(told["reasons"])
    assert any(reason.startswith("capability AVX1024 → ") for reason in told["reasons"])
    assert not any("build of torch" in reason for reason in told["reasons"])
    assert not [reason for reason in told["reasons"] if "CUBLAS" in reason or "OMP_NUM_THREADS" in reason]


@pytest.mark.xdist_group("packed")
def test_a_claim_within_rounding(ostinato, packed, from_server, tmp_path, engine):
    """The loss of step 3 is changed by a float32's last digit: that is rounding. A hundredth is not."""

    def changed(text: str, by: float) -> str:
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            if line["step"] == 3 and "train/loss" in line:
                line["train/loss"] *= 1 + by
        return "".join(json.dumps(line) + "\n" for line in lines)

    def change(files):
        files["metrics.jsonl"] = changed(files["metrics.jsonl"].decode(), 1e-7).encode()

    path = packing.repacked(packed, tmp_path / "run.run.zip", change)
    code, out = ostinato(path, "--here", "--trust")
    assert code == 0, out
    told = report()
    assert (told["verdict"], told["differing"]) == ("the same within rounding", 1)
    assert (told["first_difference"]["step"], told["first_difference"]["tag"]) == (3, "train/loss")
    assert "the same within rounding: steps 1 to 8" in out
    run = next(Path("run-repeated/runs/default").glob("2*"))
    again = sorted(Path("run-repeated/runs/default/reproduced").iterdir(), key=lambda path: path.stat().st_ctime)
    assert [logged(folder) == logged(next(packed.parent.glob("2*"))) for folder in again] == [True, False]
    (run / "metrics.jsonl").write_text(changed((run / "metrics.jsonl").read_text(), 0.01))
    verdict = engine("tools.verdict")
    values = [verdict.logged(folder) for folder in (run, *again)]
    assert verdict.Comparison(*values[:2], [], "val/acc", values[2]).verdict == "different"


def test_a_project_hands_a_file_over(server, workspace, tmp_path):
    """`python -m digits reproduce FILE` runs `uvx --from SOURCE ostinato reproduce FILE`."""
    answers = workspace / ".copier-answers.yml"
    lines = [line for line in answers.read_text().splitlines() if not line.startswith("_src_path")]
    answers.write_text("\n".join([*lines, "_src_path: gh:someone/ostinato", ""]))
    (tmp_path / "bin").mkdir()
    (uvx := tmp_path / "bin/uvx").write_text('#!/bin/sh\nprintf "%s " "$@"\nexit 75\n')
    uvx.chmod(0o755)
    verb = workspace / "digits/__main__.py"
    done = server.run(
        verb, "reproduce", "a.run.zip", "--here", "--steps", "3", PATH=f"{tmp_path}/bin:{os.environ['PATH']}"
    )
    source = "git+https://github.com/someone/ostinato"
    assert done.code == 75
    assert done.out == f"--from {source} ostinato reproduce a.run.zip --python {sys.executable} --steps 3 "
    done = server.run(verb, "reproduce", "a.run.zip", PATH=str(tmp_path))
    assert (done.code, done.last) == (2, "uvx is missing, which repeats a packed run. Install uv: pip install uv.")
    for address, told in {
        "git@example.org:me/o.git": "--from git+ssh://git@example.org/me/o.git ostinato reproduce a.zip",
        "ostinato": "_src_path=ostinato in .copier-answers.yml is not the template's address. Write it there.",
    }.items():
        answers.write_text("\n".join([*lines, f"_src_path: {address}", ""]))
        done = server.run(verb, "reproduce", "a.zip", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
        assert done.last == told
