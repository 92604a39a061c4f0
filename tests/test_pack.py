"""`python -m PACKAGE pack RUN`: a run as one file, and what a manifest records for it: docs/run-files.md."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
import torch
from helpers import snippets
from helpers.releases import commit, git
from helpers.run_files import digest, opened, values_sha256
from helpers.runs import the_run
from helpers.template import ROOT

QUICK = ("model=mlp", "model.hidden=[8]", "max_steps=6", "save_every_steps=3", "log.every=2", "logger=none")
QUICK += ("log.curves=false", "workers=0", "ema_decay=0.9", "limit_val_batches=1")
FROZEN = Path(__file__).parent / "run_files/format-1.run.zip"
"""Written once, by the release that brought the format. It is never written anew."""
REMOTE = "https://github.com/someone/digits.git"
TASK = "digits/task.py"
TOKEN = "ghp_" + "a1" * 20


@pytest.fixture(scope="module")
def home(project, server, tmp_path_factory) -> Path:
    """A project in git with a finished run. A file is changed, another is new, a third is ignored."""
    place = tmp_path_factory.mktemp("pack") / "digits"
    home = shutil.copytree(project, place, ignore=shutil.ignore_patterns("__pycache__"))
    git(home, "init", "--quiet")
    git(home, "remote", "add", "origin", REMOTE.replace("//", f"//me:{TOKEN}@"))
    (home / "digits/binary.bin").write_bytes(bytes(range(256)))
    (home / "large.txt").write_bytes(b"a" * (2**20 + 1))
    commit(home)
    (home / TASK).write_text((home / TASK).read_text() + "\n# changed\n")
    (home / "digits/new.py").write_text("# new: é\n")
    (home / ".env").write_text("A=1\n")
    (home / "link.py").symlink_to("/etc/hostname")
    (home / "uv.lock").write_text("# a lock that git ignores\n")
    (home / ".git/info/exclude").write_text("uv.lock\n")
    env = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HOME_SECRET": "abc"}
    assert server.run(home / "train.py", *QUICK, **env).code == 0
    return home


@pytest.fixture
def packing(home, tmp_path) -> Path:
    """A copy of this project. Its run is packed to out.run.zip."""
    return shutil.copytree(home, tmp_path / "digits", symlinks=True)


@pytest.fixture
def pack(server, tmp_path):
    """`pack(project, *options)`: the result of packing its run to "my out.run.zip", and the path of this file."""

    def pack(project: Path, *options: str, run: Path | None = None):
        out = tmp_path / "my out.run.zip"
        run = run or the_run(project)
        done = server.run(project / "digits/__main__.py", "pack", str(run), "--out", str(out), *options, cwd=project)
        assert "Traceback" not in done.out, done.out
        return done, out

    return pack


def manifest_of(project: Path) -> dict:
    return json.loads((the_run(project) / "manifest.json").read_text())


# ---------------------------------------------------------------- the record


def test_the_record_of_the_environment(home):
    told = manifest_of(home)["environment"]
    # Not those that setuptools brings for itself, and puts on this process's path once it is imported.
    found = metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {re.sub("[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in found}
    assert len(installed) > 50
    assert {name: told["packages"].get(name) for name in installed} == installed
    assert told["python"] == " ".join(sys.version.split())
    assert told["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert told["cpu"]["model"] in Path("/proc/cpuinfo").read_text()
    assert told["threads"] == 1
    assert told["torch"] == torch.__config__.show()
    kept = {k: told["variables"].get(k) for k in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "HOME_SECRET", "PATH")}
    assert kept == {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HOME_SECRET": None, "PATH": None}


def test_the_source_of_packages(engine, tmp_path, monkeypatch):
    for name, told in {
        "From_Git-1.0": {"url": "https://me:key@x.org/y", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
        "a.folder-2.0": {"url": "file:///home/me/y", "dir_info": {"editable": True}},
        "an_index-3.0+cpu": None,
        "broken-4.0": "no JSON",
    }.items():
        (tmp_path / f"{name}.dist-info").mkdir()
        if told is not None:
            (tmp_path / f"{name}.dist-info/direct_url.json").write_text(json.dumps(told))
    facts = engine("run.facts")
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/nowhere"])
    assert facts.installed() == (
        {"from-git": "1.0", "a-folder": "2.0", "an-index": "3.0+cpu", "broken": "4.0"},
        {"from-git": "git+https://x.org/y@abc", "a-folder": "file:///home/me/y"},
    )


def test_the_record_of_the_source(home):
    told = manifest_of(home)
    assert told["git"]["commit"] == git(home, "rev-parse", "HEAD").strip()
    assert "# changed" in told["git"]["diff"]
    assert told["git"]["remote"] == REMOTE
    assert told["git"]["untracked"] == {"digits/new.py": "# new: é\n"}
    tracked = set(git(home, "ls-files").splitlines())
    assert TASK in tracked
    wanted = tracked - {"large.txt"} | {"digits/new.py", "uv.lock"}
    assert told["source"] == {path: digest((home / path).read_bytes()) for path in wanted}
    assert TOKEN not in (the_run(home) / "manifest.json").read_text()


def test_the_source_without_git(engine, tmp_path, monkeypatch):
    source, outside = engine("run.source"), tmp_path / "outside.py"
    project = tmp_path / "project"
    mine = ["train.py", "digits/data/mine.py", ".copier-answers.yml", "uv.lock", "configs/data/x.yaml", "é.py"]
    mine.append("report/main.tex")
    others = [
        "back\\slash.py",
        "data-of-the-run/x.csv",
        "report-of-the-run/report.json",
        "runs/a/x.py",
        "data/x.csv",
        ".env",
        ".venv/x.py",
        "env/pyvenv.cfg",
        "env/x.py",
        "digits/__pycache__/x.py",
    ]
    for path in (*mine, *others, "large.py", "a.run.zip"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    (project / "large.py").write_bytes(b"a" * (2**20 + 1))
    (project / "uv.lock").write_bytes(b"a" * (2**20 + 1))
    outside.write_text("secret")
    (project / "link.py").symlink_to(outside)
    os.mkfifo(project / "pipe.py")
    monkeypatch.setattr(source, "ROOT", project)
    assert source.source_hashes() == {path: digest((project / path).read_bytes()) for path in mine}
    assert source.git_facts() is None


def test_the_readers_rules_for_names(engine, tmp_path, monkeypatch):
    """What the reader refuses, `pack` does not write."""
    pack, content = engine("tools.pack"), engine("build.content")
    monkeypatch.setattr(pack, "ROOT", tmp_path)
    monkeypatch.setattr(engine("run.source"), "ROOT", tmp_path)
    (tmp_path / "..odd.py").touch()
    assert pack.past_source({"git": None, "source": {"..odd.py": digest(b"")}}) == {"..odd.py": b""}
    told = {"packages": {"-a": "1", "b": "1-2", "c": "1+cu12", "d": "1+2+3"}, "sources": {}}
    assert pack._requirements({"environment": told}) == ("c==1+cu12\n", ["-a", "b", "d"])
    for name in (b"a\x1b.png", b"a\xff.png", "a\u2028.png".encode(), b"a\\.png"):
        (place := tmp_path / "data").mkdir()
        (place / "Bild 9.41\u202fAM.png").touch()
        assert content.data_files(place)[1] == ["Bild 9.41\u202fAM.png"]
        (place / os.fsdecode(name)).touch()
        with pytest.raises(engine("errors").UserError, match="has a control character"):
            content.data_files(place)
        shutil.rmtree(place)


def test_many_source_files_are_said(engine, tmp_path, monkeypatch, caplog):
    source = engine("run.source")
    monkeypatch.setattr(source, "ROOT", tmp_path)
    monkeypatch.setattr(source, "MOST", 3)
    for number in range(5):
        (tmp_path / f"{number}.py").touch()
    with caplog.at_level("WARNING", logger="run"):
        assert list(source.source_hashes()) == ["0.py", "1.py", "2.py"]
    assert "more than 3 source files" in caplog.text


def test_secrets_are_found_in_a_second(engine):
    facts = engine("run.facts")
    long = "a" * 1_000_000
    assert facts.without_secrets(f"{long} data.tokenizer=bert-base-uncased-v1") == (
        f"{long} data.tokenizer=bert-base-uncased-v1"
    )
    assert facts.without_secrets("x.api_key = 'abcd1234'") == f"x.api_key = {facts.LEFT_OUT}"


def test_no_file_of_the_template_looks_like_a_secret(engine):
    """Else a packed run would lack it."""
    clean = engine("run.facts").without_secrets
    for path in (ROOT / "template").rglob("*"):
        if path.suffix in (".py", ".yaml", ".jinja", ".json", ".sh", ".txt"):
            text = path.read_text(encoding="utf-8")
            assert clean(text) == text, path


# ---------------------------------------------------------------- the file


def test_what_a_packed_run_holds(home, pack):
    done, out = pack(home)
    assert done.code == 0, done.out
    told, files = opened(out)
    run, manifest = the_run(home), manifest_of(home)
    assert files["config.yaml"] == (run / "config.yaml").read_bytes()
    assert files["manifest.json"] == (run / "manifest.json").read_bytes()
    assert files["metrics.jsonl"] == (run / "metrics.jsonl").read_bytes()
    source = {name.removeprefix("source/"): digest(files[name]) for name in files if name.startswith("source/")}
    assert source == manifest["source"]
    assert f"{len(source)} source files, no weights, no data." in done.last
    assert told["claims"] == manifest["result"]
    assert told["command"] == manifest["command"]
    assert (told["format"], told["name"], told["package"]) == (1, f"default/{run.name}", "digits")
    assert told["data"] == {
        "_target_": ".data.digits.Digits",
        "fingerprint": manifest["fingerprint"]["data"],
        **{"files": None, "needs": None, "packed": False, "place": None},
    }
    assert told["seeds"] == [{"seed": 0, "last": told["claims"]["last"], "best": told["claims"]["best"]}]
    assert [entry["step"] for entry in told["checkpoints"]] == [6, 3]
    assert told["checkpoints"][0]["weights_sha256"] == told["claims"]["weights_sha256"]
    assert told["checkpoints"][0]["ema_sha256"] == told["claims"]["ema_sha256"]
    for entry in told["checkpoints"]:
        assert entry["values_sha256"] == values_sha256(files["metrics.jsonl"], entry["step"])
        assert entry["file"] is None
    assert told["checkpoints"][0]["best"], "best.pt is the same"
    assert told["left_out"] == {}
    lines = files["requirements.txt"].decode().splitlines()
    packages = manifest["environment"]["packages"]
    assert sorted([*(line.partition("==")[0] for line in lines), *told["unavailable"]]) == sorted(packages)
    assert f"torch=={metadata.version('torch')}" in lines
    assert 8 <= len(files["README.txt"].decode().splitlines()) <= 12
    assert f"ostinato reproduce '{out.name}'\n" in files["README.txt"].decode()
    assert out.stat().st_size < 2**20


def test_packing_twice_gives_equal_bytes(home, pack, server):
    first = pack(home)[1].read_bytes()
    done, out = pack(home)
    assert out.read_bytes() == first
    run = the_run(home)
    place = run.with_name(f"default-{run.name}.run.zip")
    done = server.run(home / "digits/__main__.py", "pack", cwd=home)  # the newest run, the usual place
    assert f"{place.relative_to(home)}: " in done.out
    assert opened(place)[0]["claims"] == opened(out)[0]["claims"]
    place.unlink()


def test_a_changed_file_is_taken_from_git(packing, pack):
    """One as committed, one with the changes of then, one that git did not know, and one that is gone."""
    before = opened(pack(packing)[1])[1]
    (packing / "train.py").write_text("# other\n")
    (packing / TASK).write_text("# other\n")
    (packing / "digits/new.py").unlink()
    (packing / "digits/binary.bin").unlink()
    commit(packing)
    count = len(list((packing / ".git").rglob("*")))
    done, out = pack(packing)
    assert done.code == 0, done.out
    assert opened(out)[1] == before
    assert len(list((packing / ".git").rglob("*"))) == count, "the repository stays as it was"


def test_a_project_below_the_top_of_its_repository(engine, tmp_path, monkeypatch):
    """A changed file is found there, too. A link is not a source file, and files beside the project do not count."""
    source, past, project = engine("run.source"), engine("tools.pack"), tmp_path / "work/é"
    (project / "digits").mkdir(parents=True)
    git(tmp_path, "init", "--quiet")
    for path in ("train.py", "beside.py", "work/é/train.py", "work/é/digits/task.py"):
        (tmp_path / path).write_text(f"# {path}\n")
    (project / "link.py").symlink_to("train.py")
    commit(tmp_path)
    (project / "digits/task.py").write_text("# changed before the run\n")
    for module in (source, past):
        monkeypatch.setattr(module, "ROOT", project)
    manifest = {"git": source.git_facts(), "source": source.source_hashes()}
    wanted = {path: (project / path).read_bytes() for path in ("digits/task.py", "link.py", "train.py")}
    assert past.past_source(manifest) == wanted
    for path in ("train.py", "digits/task.py"):
        (project / path).write_text("# other\n")
    del manifest["source"]["link.py"], wanted["link.py"]
    assert past.past_source(manifest) == wanted
    assert past.past_source({"git": manifest["git"]}) == wanted, "of a release that recorded no hashes"


def test_source_that_changed_before_the_run_went_on(packing, pack, server):
    """The file has the source of the start, and says that this is not the whole truth."""
    before = opened(pack(packing)[1])[1][f"source/{TASK}"]
    with open(packing / TASK, "a") as file:
        file.write("# changed again\n")
    assert server.run(packing / "train.py", f"resume={the_run(packing)}", "max_steps=8").code == 0
    assert manifest_of(packing)["resumed"][0]["differences"] == [f"changed source: {TASK}"]
    done, out = pack(packing)
    assert f"Resumed at step 6 with changed source: {TASK}: a repetition may differ." in done.out
    assert opened(out)[1][f"source/{TASK}"] == before


def test_the_source_of_a_submodule(engine, tmp_path, monkeypatch):
    source, project, other = engine("run.source"), tmp_path / "project", tmp_path / "other"
    for folder in (project, other):
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / "x.py").write_text(folder.name)
        commit(folder)
    git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "a/third")
    (project / "new.py").touch()
    monkeypatch.setattr(source, "ROOT", project)
    told = {path: digest((project / path).read_bytes()) for path in (".gitmodules", "a/third/x.py", "new.py", "x.py")}
    assert source.source_hashes() == told


def test_a_changed_file_without_its_old_state_is_refused(packing, pack):
    shutil.rmtree(packing / ".git")
    assert pack(packing)[0].code == 0
    out = pack(packing)[1]
    out.unlink()
    (packing / TASK).write_text("# other\n")
    done, _ = pack(packing)
    assert done.code == 2, done.out
    assert done.last.startswith(f"{TASK} has changed since the run, and git does not hold its old state.")
    assert not out.exists()


def test_secrets_are_replaced_and_named(packing, pack, engine):
    key = "k3y" * 8
    for path, text in {TASK: f'\napi_key = "{key}"\n', "digits/new.py": f"# {TOKEN}\n"}.items():
        (packing / path).write_text((packing / path).read_text() + text)
    latin = "digits/binary.bin"
    (packing / latin).write_bytes(f"# é {TOKEN}".encode("latin-1"))
    run = the_run(packing)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("logger: {}", f"logger:\n  x:\n    api_key: {key}"))
    manifest = manifest_of(packing)
    for path in (TASK, "digits/new.py", latin):
        manifest["source"][path] = digest((packing / path).read_bytes())
    manifest["git"]["diff"] += f"\n+password='{key}'"
    (run / "manifest.json").write_text(json.dumps(manifest))
    done, out = pack(packing)
    assert done.code == 0, done.out
    told, files = opened(out)
    everything = b"\n".join(files.values()).decode(errors="replace")
    assert key not in everything
    assert TOKEN not in everything
    changed = [f"source/{path}" for path in (latin, "digits/new.py", TASK)]
    assert sorted(told["left_out"]) == ["config.yaml", "manifest.json", *changed]
    assert files[f"source/{latin}"].startswith("# é [".encode("latin-1"))
    assert all(f"{name} holds " in done.out for name in told["left_out"])
    assert json.loads(files["manifest.json"])["source"] == manifest["source"]


def test_weights_are_packed_and_damaged_ones_named(packing, pack):
    run = the_run(packing)
    done, out = pack(packing, "--weights")
    assert done.code == 0, done.out
    told, files = opened(out)
    for entry in told["checkpoints"]:
        assert files[entry["file"]] == (run / entry["file"]).read_bytes()
    assert [entry["file"] for entry in told["checkpoints"]] == [f"checkpoints/step-0000000{n}.pt" for n in (6, 3)]
    (run / "checkpoints/best.pt").unlink()
    shutil.copy(run / "checkpoints/step-00000003.pt", run / "checkpoints/best.pt")
    (run / "checkpoints/step-00000006.pt").write_bytes(b"damaged")
    done, out = pack(packing, "--weights")
    assert done.code == 0, done.out
    told, files = opened(out)
    assert [(e["step"], e["best"]) for e in told["checkpoints"]] == [(3, True)]
    assert "is damaged" in told["left_out"]["checkpoints/step-00000006.pt"]
    assert "checkpoints/step-00000006.pt is left out" in done.out
    (run / "checkpoints/step-00000003.pt").unlink()
    told = opened(pack(packing, "--weights")[1])[0]
    assert [(e["step"], e["file"]) for e in told["checkpoints"]] == [(3, "checkpoints/best.pt")]


def test_a_sharded_checkpoint_is_a_folder(server, pack, workspace, load, engine):
    options = ("model=mlp", "model.hidden=[8]", "max_steps=2", "logger=none", "workers=0", "parallel=fsdp")
    assert server.run_together(workspace / "train.py", *options).code == 0
    done, out = pack(workspace, "--weights")
    assert done.code == 0, done.out
    told, files = opened(out)
    (entry,) = told["checkpoints"]
    assert entry["weights_sha256"] == told["claims"]["weights_sha256"]
    assert entry["best"]
    for part in (the_run(workspace) / entry["file"]).iterdir():
        assert files[f"{entry['file']}/{part.name}"] == part.read_bytes()


def test_the_seeds_beside_a_run(packing, pack):
    """Runs that differ in another key, are not finished or cannot be read do not count."""
    run = the_run(packing)
    for name, old, new in (("b", "seed: 0", "seed: 7"), ("c", "lr: ", "lr: 1"), ("d", "seed: 0", "seed: 8")):
        other = shutil.copytree(run, run.with_name(name))
        text = (other / "config.yaml").read_text()
        (other / "config.yaml").write_text(re.sub(f"^{old}", new, text, flags=re.MULTILINE))
        manifest = json.loads((other / "manifest.json").read_text())
        manifest["result"].update(last=0.25, best=0.5)
        manifest["status"] = "stopped" if name == "d" else "finished"
        (other / "manifest.json").write_text(json.dumps(manifest))
    told = opened(pack(packing, run=run)[1])[0]
    own = {"seed": 0, **{key: told["claims"][key] for key in ("last", "best")}}
    assert told["seeds"] == [own, {"seed": 7, "last": 0.25, "best": 0.5}]


def test_a_run_of_an_older_release(packing, pack):
    """Its manifest has neither source nor environment: commit and changes must do."""
    path = the_run(packing) / "manifest.json"
    told = json.loads(path.read_text())
    del told["source"], told["environment"], told["git"]["remote"], told["git"]["untracked"]
    path.write_text(json.dumps(told))
    changed = (packing / TASK).read_bytes()
    (packing / TASK).write_text("# other\n")
    done, out = pack(packing)
    assert done.code == 0, done.out
    files = opened(out)[1]
    assert files[f"source/{TASK}"] == changed
    tracked = {f"source/{path}" for path in git(packing, "ls-files").splitlines()}
    assert {name for name in files if name.startswith("source/")} == tracked
    assert f"torch=={metadata.version('torch')}\n" in files["requirements.txt"].decode()
    told["git"]["diff"] = re.sub(r"(?m)^ .*\w.*$", " other", told["git"]["diff"])
    path.write_text(json.dumps(told))
    done, _ = pack(packing)
    assert done.code == 2
    assert done.last.startswith(f"The run's changes to {TASK} are not known.")
    path.write_text(json.dumps({**told, "git": None}))
    assert "This run began without git" in pack(packing)[0].last
    path.write_text(json.dumps({**told, "git": {"commit": "--all", "diff": ""}}))
    assert "git does not have the run's commit --all." in pack(packing)[0].last


def test_what_is_refused(packing, pack, server, tmp_path):
    run = the_run(packing)
    for options, words in (
        (("--data",), "no data.root or data.path names them"),
        (("--out", str(tmp_path / "x.tar")), "--out x.tar is not a zip. Let it end in .run.zip."),
    ):
        done = server.run(packing / "digits/__main__.py", "pack", str(run), *options, cwd=packing)
        assert done.code == 2, done.out
        assert words in done.last
    manifest = json.loads((run / "manifest.json").read_text())
    for change, words in (
        ({"status": "stopped"}, "is not finished but stopped"),
        ({"source": {"../x": "0"}}, "names the source file '../x'"),
        ({"source": {"/etc/passwd": "0"}}, "names the source file '/etc/passwd'"),
        ({"source": {"train.py": 3}}, "has a wrong value or none at 'source.train.py'"),
        ({"git": {**manifest["git"], "commit": "--all"}, "source": {"gone.py": "0"}}, "gone.py has changed"),
    ):
        (run / "manifest.json").write_text(json.dumps({**manifest, **change}))
        done, out = pack(packing)
        assert done.code == 2, done.out
        assert words in done.last
        assert not out.exists()
    resumed = [{"step": 3, "extended": {"epochs": 2}, "differences": []}]
    (run / "manifest.json").write_text(json.dumps({**manifest, "resumed": resumed}))
    done, out = pack(packing)
    said = "Resumed at step 3 with epochs: a repetition may differ."
    assert (done.code, said in done.out) == (0, True), done.out
    out.unlink()
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "train.log").unlink()
    (run / "train.log").symlink_to("/etc/hostname")
    done, out = pack(packing)
    assert done.code == 2
    assert "is a link out of the run folder" in done.last
    assert not out.exists()


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
def test_what_cannot_be_written(home, server, tmp_path, fault):
    """Each write to the place of the file fails in turn: code 74, and nothing is left of it."""
    tool = home / "failing_files.py"
    snippets.add(home, tool.name)
    place = tmp_path / "place"
    place.mkdir()
    command = (str(home / "digits/__main__.py"), "pack", str(the_run(home)), "--out", str(place / "a.run.zip"))
    env = {"BELOW": str(place), "FAULT": fault, "NOTE": str(tmp_path / "note")}
    assert server.run(tool, *command, cwd=home, **env, NUMBER="9999999").code == 0
    count = json.loads((tmp_path / "note").read_text())[1][fault]
    for number in (2, 3, count // 2, count - (fault == "EIO")):  # the first makes the folder, EIO's last deletes a file
        (place / "a.run.zip").unlink(missing_ok=True)
        done = server.run(tool, *command, cwd=home, **env, NUMBER=str(number))
        assert done.code == 74, (number, done.out, (tmp_path / "note").read_text())
        assert "a.run.zip cannot be written" in done.last
        assert list(place.iterdir()) == []
    tool.unlink()


# ---------------------------------------------------------------- the data


@pytest.fixture
def on_pictures(workspace, train, pictures):
    """A finished run on an image folder with every byte of the data in its fingerprint."""
    (pictures / "方块/.hidden").write_text("x")
    options = (*QUICK, "data=image_folder", f"data.root='{pictures}'", "data.size=8", "batch_size=16")
    assert train(*options, "data.fingerprint=content").code == 0
    return options


def test_every_byte_of_the_data_is_in_the_fingerprint(on_pictures, workspace, train, pictures, server):
    run, kept = the_run(workspace), [path for path in sorted(pictures.rglob("*.png"))]
    wanted = "".join(f"{digest(path.read_bytes())}  {path.relative_to(pictures)}\n" for path in kept)
    lines = (run / "data.sha256").read_text()
    assert sorted(lines.splitlines()) == sorted(wanted.splitlines())
    subprocess.run(["sha256sum", "--check", "--quiet", str(run / "data.sha256")], cwd=pictures, check=True)
    told = json.loads((run / "manifest.json").read_text())["fingerprint"]["data"]
    assert told.endswith(f"-{digest(lines.encode())[:16]}")
    assert train(f"resume={run}", "epochs=21", "max_steps=7").code == 0
    assert "have changed" not in server.run(workspace / "digits/__main__.py", "evaluate", str(run)).out
    first, content = kept[0], kept[0].read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # in the checksum of the last chunk
    done = train(f"resume={run}", "max_steps=8")
    assert done.code == 2, done.out
    assert "The data have changed." in done.last
    assert train(*on_pictures, "name=names").code == 0
    assert not (the_run(workspace, "names") / "data.sha256").exists()


def test_data_are_packed_if_they_are_those_of_the_run(on_pictures, workspace, pack, pictures, tmp_path):
    done, out = pack(workspace, "--data")
    assert done.code == 0, done.out
    told, files = opened(out)
    names = {str(path.relative_to(pictures)): path.read_bytes() for path in pictures.rglob("*.png")}
    assert {name.removeprefix("data/"): files[name] for name in files if name.startswith("data/")} == names
    assert told["data"]["files"] == {name: digest(content) for name, content in names.items()}
    assert (told["data"]["needs"], told["data"]["packed"], told["data"]["place"]) == ("root", True, "data")
    told = opened(pack(workspace)[1])[0]
    assert told["data"]["files"] == {name: digest(content) for name, content in names.items()}
    assert (told["data"]["packed"], told["data"]["place"]) == (False, None)
    elsewhere = pictures.rename(tmp_path / "elsewhere")
    assert "--data packs the files of the data, but" in pack(workspace, "--data")[0].last
    assert pack(workspace, f"data.root={elsewhere}", "--data")[0].code == 0
    next(elsewhere.rglob("1.png")).unlink()
    done, _ = pack(workspace, f"data.root={elsewhere}", "--data")
    assert done.code == 2
    assert "differ from those of the run" in done.last


OWN = """
from ..engine.api import Data
from .digits import Digits


class Own(Digits):
    def __init__(self, path: str = "x", fingerprint: str = "a"):
        super().__init__(shift=1)
        assert fingerprint == "mine"
"""


def test_content_where_it_means_little(workspace, train):
    short = QUICK
    done = train(*short, "data.fingerprint=content")
    assert done.code == 0, done.out
    assert "finds no files of .data.digits.Digits" in done.out
    done = train(*short, "data.fingerprint=sha1")
    assert done.code == 2
    assert done.last == "data.fingerprint=sha1 is not possible. It must be content, or null."
    (workspace / "digits/data/own.py").write_text(OWN)
    assert train(*short, "data=.data.own.Own", "data.fingerprint=mine").code == 0


# ---------------------------------------------------------------- the format


def shape(value: object) -> object:
    """The keys of nested dicts; of a list, those of its entries; else the type."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value[:1]]
    return type(value).__name__


def test_the_first_file_of_the_format_stays_readable(home, pack):
    """Its run.json has the keys that today's has, and each hash is right."""
    old, files = opened(FROZEN)
    told = opened(pack(home, "--weights")[1])[0]
    free = {"files": {}, "template": "", "unavailable": []}
    assert shape({**old, **free}) == shape({**told, **free})
    assert old["format"] == 1
    manifest = json.loads(files["manifest.json"])
    source = {name.removeprefix("source/"): digest(files[name]) for name in files if name.startswith("source/")}
    assert source == manifest["source"]
    for entry in old["checkpoints"]:
        assert entry["values_sha256"] == values_sha256(files["metrics.jsonl"], entry["step"])
        assert entry["file"] in files


def test_the_updater_checks_the_first_file():
    command = [sys.executable, "-m", "ostinato", "reproduce", str(FROZEN), "--check"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " agrees: " in done.stdout + done.stderr


def test_the_page_names_every_key(home, pack):
    page = (Path(__file__).parents[1] / "docs/run-files.md").read_text(encoding="utf-8")
    told = opened(pack(home)[1])[0]
    for key in (*told, *told["data"], *told["checkpoints"][0], *told["seeds"][0]):
        assert f"`{key}`" in page, key
    for key in ("git", "source", "environment", *manifest_of(home)["environment"], *manifest_of(home)["git"]):
        assert f"`{key}`" in page, key
