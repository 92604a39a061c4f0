"""`parallel=fsdp` and `hsdp`: divided parameters train what whole ones do, and their checkpoints fit all."""

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import snippets
from helpers.runs import logged, result, rows, the_run
from helpers.watching import DATA, SHORT, TASK, difference
from PIL import Image

SHARDED = (*TASK, *SHORT, *DATA, "model=blocks", "save_every_steps=4", "optimizer=adamw", "ema_decay=0.9")


@pytest.fixture
def together(server, workspace):
    """`together(name, *overrides)`: train a run of divided parameters in two processes, or in so many."""
    snippets.add(workspace, "digits/watched.py", "digits/models/blocks.py")
    (workspace / "configs/model/blocks.yaml").write_text("_target_: .models.blocks.Blocks\n")

    def together(name: str, *overrides: str, parallel: str = "fsdp", processes: int = 2, **env: str):
        env = {"BATCHES": str(workspace / f"{name}.batches"), **env}
        options = (*SHARDED, f"name={name}", "resume=auto", f"parallel={parallel}", *overrides)
        return server.run_together(workspace / "train.py", *options, processes=processes, **env)

    return together


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((folder / "checkpoints").glob("step-*"))


def batches(workspace: Path, name: str) -> dict[int, set[str]]:
    """The digests of the batches that all processes had in each step."""
    seen: dict[int, set[str]] = {}
    for line in (workspace / f"{name}.batches").read_text().splitlines():
        _, step, digest = line.split()
        seen.setdefault(int(step), set()).add(digest)
    return seen


def assert_equal(load, whole: Path, other: Path) -> None:
    """Two runs logged the same and ended with the same state, bit for bit."""
    assert result(other) == result(whole)
    assert logged(other) == logged(whole)
    of_files = {"config", "files", "folder"}
    states = [{k: v for k, v in load(newest(run)).items() if k not in of_files} for run in (whole, other)]
    assert difference(*states) is None
    assert [path.name for path in (other / "checkpoints").iterdir() if path.name.startswith(".")] == []


def assert_close(load, one: Path, other: Path) -> None:
    """Two runs had the same steps, and ended with the same weights up to rounding."""
    a, b = load(newest(one)), load(newest(other))
    assert a["step"] == b["step"]
    for part in ("model", "ema"):
        assert list(a[part]) == list(b[part])
        for key, value in a[part].items():
            torch.testing.assert_close(value, b[part][key], rtol=2e-3, atol=2e-5)


def test_two_processes_with_divided_parameters_train_what_ddp_trains(together, workspace):
    """Bit for bit where the optimizer's kernel rounds alike for parts: with fused=false."""
    for parallel in ("ddp", "fsdp", "hsdp"):
        done = together(parallel, "optimizer.fused=false", "log.grad_norm=true", "test=true", parallel=parallel)
        assert done.code == 0, done.out
    ddp, fsdp, hsdp = (the_run(workspace, name) for name in ("ddp", "fsdp", "hsdp"))
    assert result(fsdp) == result(ddp)
    assert [pytest.approx(row, rel=1e-5) for row in logged(ddp)] == logged(fsdp)
    assert sorted(p.name for p in (fsdp / "checkpoints").iterdir())[0] == "best.dcp"
    assert len(list((fsdp / "checkpoints").glob("step-*.dcp"))) in (3, 4)  # the best may be an older one
    assert batches(workspace, "fsdp") == batches(workspace, "ddp")
    assert (result(hsdp), logged(hsdp)) == (result(fsdp), logged(fsdp))  # on one host
    tests = [json.loads((run / "manifest.json").read_text())["test"] for run in (ddp, fsdp)]
    assert tests[0] == {**tests[1], "checkpoint": "best.pt", "values": pytest.approx(tests[1]["values"], rel=1e-5)}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulation_clipping_and_fused_optimizers(together, workspace, load, optimizer):
    options = ("accumulate=2", "clip_grad_norm=0.5", "clip_grad_value=0.2", f"optimizer={optimizer}")
    for parallel in ("ddp", "fsdp"):
        done = together(parallel, *options, "drop_last=false", "batch_size=24", parallel=parallel)
        assert done.code == 0, done.out
    assert_close(load, the_run(workspace, "ddp"), the_run(workspace, "fsdp"))


def test_a_killed_run_goes_on_bit_for_bit(together, workspace, load):
    options = ("precision=bf16", "clip_grad_norm=1.0")
    assert together("whole", *options).code == 0
    stops = (("5", "SIGKILL"), ("9", "SIGTERM"), ("14", "SIGKILL"))
    for at, how in stops:
        together("stopped", *options, AT=at, WITH=how)
    done = together("stopped", *options)
    assert done.code == 0, done.out
    assert "Traceback" not in done.out
    assert_equal(load, the_run(workspace, "whole"), the_run(workspace, "stopped"))
    assert batches(workspace, "stopped") == batches(workspace, "whole")


def test_a_run_goes_on_with_other_numbers_of_processes_and_whole_parameters(together, workspace, load):
    """4 → 2 → 1 → 4 processes; fsdp → ddp → fsdp → hsdp on two hosts."""
    alike = "model.drop=0.0"  # dropout depends on the number of processes
    assert together("whole", alike, parallel="ddp").code == 0
    stages = (
        ("4", {"processes": 4}),
        ("7", {"processes": 2}),
        ("10", {"processes": 1, "parallel": "ddp"}),
        ("13", {"processes": 2, "parallel": "ddp"}),
        ("15", {"processes": 4, "parallel": "hsdp", "LOCAL_WORLD_SIZE": "2"}),
        ("", {"processes": 4}),
    )
    for at, how in stages:
        done = together("moved", alike, AT=at, WITH="SIGTERM", SLEEP="0.03", **how)
        assert done.code == (75 if at else 0), done.out
    whole, moved = the_run(workspace, "whole"), the_run(workspace, "moved")
    resumed = json.loads((moved / "manifest.json").read_text())["resumed"]
    assert [entry["step"] for entry in resumed] == [6, 9, 11, 15, 17], "processes hear a stop one step later"
    assert_close(load, whole, moved)
    log = (moved / "train.log").read_text()
    assert "no longer bit-exact: world_size 4 → 2." in log
    assert "no longer bit-exact: parallel fsdp → ddp, world_size 2 → 1." in log
    kinds = {path.suffix for path in (moved / "checkpoints").glob("best*")}
    assert kinds == {".dcp"}
    a, b = ([row["val/loss"] for row in rows(run) if "val/loss" in row] for run in (whole, moved))
    assert a == pytest.approx(b, rel=1e-3)


def test_the_verbs_read_it_in_one_process(together, server, workspace, load):
    assert together("whole").code == 0
    run = the_run(workspace, "whole")
    verbs = workspace / "digits/__main__.py"
    assert server.run(verbs, "evaluate", str(run), "--checkpoint", "last", cwd=workspace).code == 0
    values = json.loads((run / "evaluate-val.json").read_text())["values"]
    last = [row for row in rows(run) if "val/loss" in row][-1]
    # The run validates only a part of the split.
    assert values.keys() <= last.keys()
    Image.new("L", (8, 8), 100).save(workspace / "a.png")
    for verb in (("export", "--format", "safetensors"), ("compare",), ("predict", "a.png")):
        done = server.run(verbs, verb[0], str(run), *verb[1:], cwd=workspace)
        assert done.code == 0, done.out
    from safetensors.torch import load_file

    exported, state = load_file(run / "model.safetensors"), load(run / "checkpoints/best.dcp")
    assert difference(exported, {key: state["ema"][key] for key in exported}) is None
    done = together("tuned", f"init_from={run}/checkpoints/best.dcp", "max_steps=1", parallel="ddp", processes=1)
    assert done.code == 0, done.out
    assert re.search(r"loaded (\d+) of \1 tensors", done.out)


REFUSED = {
    "there is one": (1, "parallel=fsdp"),
    "with precision=fp16": (2, "precision=fp16"),
    "with channels_last=true": (2, "channels_last=true"),
    "with compile=true": (2, "compile=true"),
    "with log.histograms": (2, "log.histograms=5"),
    "with dry_run=true": (2, "dry_run=true"),
    "the lazy module 'first'": (2, "model.lazy=true"),
    "Each micro-batch changes norm.running_mean": (2, "model.norm=batch"),
    "a schedule-free optimizer": (2, "optimizer=schedulefree.AdamWScheduleFree", "allowed_packages=[schedulefree]"),
}


def test_what_cannot_work_is_refused_before_the_run(together, workspace):
    for sentence, (processes, *options) in REFUSED.items():
        done = together("refused", *options, processes=processes)
        assert done.code == 2, done.out
        assert sentence in done.out
        assert "Traceback" not in done.out
    done = together("refused", processes=3, LOCAL_WORLD_SIZE="2")  # two hosts
    assert done.code == 2, done.out
    assert "needs as many processes on each host" in done.out
    assert not (workspace / "runs").exists()


def flipped(path: Path, draw: random.Random) -> None:
    with open(path, "r+b") as file:
        place = draw.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << draw.randrange(8)]))


def test_damage_in_any_file_is_seen(together, workspace, engine, load, tmp_path):
    assert together("whole").code == 0
    folder = the_run(workspace, "whole")
    good, draw = newest(folder), random.Random(0)
    damaged, names = engine("run.names").Damaged, [path.name for path in good.iterdir()]
    assert sorted(names) == [".metadata", "__0_0.distcp", "__1_0.distcp", "state.pt"]
    whole = load(good)
    for name in names:
        for number in range(25):
            bad = shutil.copytree(good, tmp_path / f"{number}{name}")
            (bad / name).unlink() if number == 0 else flipped(bad / name, draw)
            try:
                state = load(bad)
            except damaged:
                state = None
            if state is not None:  # some bits of a ZIP file have no meaning
                assert name == "state.pt"
                assert difference({**state, "folder": whole["folder"]}, whole) is None
            shutil.rmtree(bad)


def test_a_damaged_checkpoint_is_passed_over(together, workspace, load):
    assert together("whole").code == 0
    assert together("stopped", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    name = newest(folder).name
    flipped(newest(folder) / "__1_0.distcp", random.Random(1))
    half = folder / "checkpoints/.step-00000016.dcp.0123.tmp"
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half")
    done = together("stopped")
    assert done.code == 0, done.out
    assert done.out.count(f"{name} is damaged: the checksum of __1_0.distcp is wrong. It is not used.") == 1
    shutil.rmtree(folder / f"checkpoints/{name}.damaged")
    assert_equal(load, the_run(workspace, "whole"), folder)


def test_kills_while_saving(together, server, workspace, load, request):
    """Two in each run of the tests, 20 with --thorough."""
    draw, kills = random.Random(0), 20 if request.config.getoption("thorough") else 2
    options = ("save_every_steps=1", "model.width=400", f"epochs={max(3, kills)}")
    assert together("whole", *options).code == 0
    place, damaged = workspace / "runs/stopped", set()
    for _ in range(kills):
        before = set(place.glob("[!.]*/checkpoints/.step-*.tmp"))  # of the kill before
        rank = draw.choice((0, 1))
        full = (*SHARDED, "name=stopped", "resume=auto", "parallel=fsdp", *options)
        noted = str(workspace / "stopped.batches")
        commands = server.start_together(workspace / "train.py", *full, BATCHES=noted)
        deadline, seen = time.monotonic() + 60, draw.randint(1, 4)
        found: set[Path] = set()
        while len(found) < seen and time.monotonic() < deadline:
            found |= set(place.glob("[!.]*/checkpoints/.step-*.tmp")) - before
        time.sleep(draw.random() * 0.05)
        commands[rank].send(signal.SIGKILL)
        for command in commands:
            assert "Traceback" not in command.result().out
        for path in place.glob("[!.]*/checkpoints/step-*.dcp"):
            assert path in damaged or f"step-{load(path)['step']:08d}.dcp" == path.name
        saved = sorted(place.glob("[!.]*/checkpoints/step-*.dcp"))
        if len(saved) > 1 and saved[-1] not in damaged and draw.random() < 0.5:
            flipped(draw.choice(sorted(saved[-1].iterdir())), draw)
            damaged.add(saved[-1])
    done = together("stopped", *options)
    assert done.code == 0, done.out
    assert_equal(load, the_run(workspace, "whole"), the_run(workspace, "stopped"))


def test_a_copied_run_keeps_its_best_checkpoint(together, workspace, load):
    """A copy may hold a folder in place of the link, and nothing else."""
    assert together("copied", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "copied") / "checkpoints"
    best = folder / "best.dcp"
    target = best.resolve()
    best.unlink()
    shutil.copytree(target, best)
    for path in folder.glob("step-*"):
        shutil.rmtree(path)
    done = together("copied")
    assert done.code == 0, done.out
    assert load(best)["is_best"]
