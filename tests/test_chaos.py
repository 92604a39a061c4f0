"""A run that is stopped, killed and damaged at random ends as the run that was left alone.

`pytest tests/test_chaos.py --runs 100` does it a hundred times; every run has its own seed, options and fates. For
seven runs of one process, there is one of two processes with whole parameters, one with divided ones, and one with
virtual ranks on one, two or four processes.
"""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import snippets
from helpers.runs import logged, result, the_run
from helpers.watching import DATA, MODEL, SHORT, STOPS, TASK, assert_equal, batches, difference

MODELS = (MODEL, ("model=cnn", "model.width=4"), ("model=mlp", "model.hidden=[16,8]", "model.dropout=0.5"))
SETS = (
    DATA,
    ("data=synthetic", "data.size=90", "data.shape=[3,12,8]", "data.classes=3"),
    ("data=digits",),
    ("data=image_folder", "data.root='PICTURES'", "data.flip=true", "data.size=12"),
)
OPTIONS = (
    ("ema_decay=0.9",),
    ("accumulate=2",),
    ("accumulate=4", "clip_grad_norm=0.5"),
    ("mix=mixup",),
    ("mix=cutmix",),
    ("drop_last=false",),
    ("optimizer=sgd",),
    ("scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5"),
    ("scheduler=warmup_stable_decay",),
    ("optimizer.layer_decay=0.7", "optimizer.no_decay_norm_bias=true"),
    ("loss=terms",),
    ("precision=bf16",),
    ("val_every_steps=4",),
    ("early_stopping_patience=3", "val_every_steps=3"),
    ("log.windows=[{source: loss, name: most, statistic: max, window: 7}]", "log.grad_norm=true"),
)
MOST = 40  # commands of a run: the last ones are left alone, so that every run ends


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        runs = metafunc.config.getoption("runs")
        metafunc.parametrize("seed", range(-(-runs // 7) if "parallel" in metafunc.fixturenames else runs))


def damage(path: Path, draw: random.Random) -> str:
    """Damage a checkpoint as a failing disk or a hasty hand does. Return the kind of damage."""
    size, kind = path.stat().st_size, draw.choice(("bit", "truncated", "emptied", "deleted"))
    kind = kind if size else "deleted"  # emptied before, and no command came to see it
    if kind == "deleted":
        path.unlink()
    elif kind == "bit":
        with open(path, "r+b") as file:
            place = draw.randrange(size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << draw.randrange(8)]))
    else:
        os.truncate(path, 0 if kind == "emptied" else draw.randrange(size))
    return kind


def damage_newest(workspace: Path, draw: random.Random) -> list[str]:
    """Damage the newest of several checkpoints, every second time. Return the kind of damage, if there is any."""
    checkpoints = sorted(workspace.glob("runs/stopped/[!.]*/checkpoints/step-*"))
    # A command killed after it had finished the run leaves nothing for the next one to mend.
    manifests = [json.loads(path.read_text()) for path in workspace.glob("runs/stopped/[!.]*/manifest.json")]
    is_finished = any(manifest["status"] == "finished" for manifest in manifests)
    if len(checkpoints) < 2 or is_finished or draw.random() < 0.5:
        return []
    newest = checkpoints[-1]
    files = sorted(newest.iterdir()) if newest.is_dir() else [newest]
    return [damage(draw.choice(files), draw)] if files else []


def some_options(draw: random.Random, known: Sequence[tuple[str, ...]] = OPTIONS) -> list[str]:
    """Some of `known` that go together: no two set the same group or key."""
    taken: list[str] = []
    for some in draw.sample(known, 4):
        # A margin loss wants one label a picture, not the shares that a mix makes.
        groups = {option.split("=")[0].split(".")[0].replace("mix", "loss") for option in some}
        if not any(option.split("=")[0].split(".")[0].replace("mix", "loss") in groups for option in taken):
            taken += some
    return taken


def test_chaos(server, workspace, pictures, seed):
    snippets.add(workspace, "digits/watched.py")
    draw = random.Random(seed)
    choices = (*draw.choice(MODELS), *draw.choice(SETS), *some_options(draw))
    options = (*TASK, *SHORT, "epochs=6", *(o.replace("PICTURES", str(pictures)) for o in choices), f"seed={seed}")
    script = workspace / "train.py"
    done = server.run(script, *options, "name=whole", BATCHES=str(workspace / "whole.batches"))
    assert done.code == 0, (options, done.out)

    fates: list[str] = []
    reached = 0
    for number in range(MOST + 1):
        how = (
            f"workers={draw.choice((0, 0, 1, 2, 4))}",
            f"save_every_steps={draw.choice((1, 2, 5, 'null'))}",
            f"save_every_epochs={draw.choice((0, 1))}",
            f"keep_last={draw.choice((2, 3))}",
        )
        by = draw.choice(list(STOPS))
        env = {"BATCHES": str(workspace / "stopped.batches"), "WITH": by}
        if number == MOST:
            by = "nothing"
        elif draw.random() < 0.7:  # in one of the next steps
            env["AT"] = str(reached + draw.randint(0, 8))
        command = server.start(script, *options, *how, "name=stopped", "resume=auto", **env)
        if number < MOST and "AT" not in env:  # at any moment
            time.sleep(draw.random() * draw.choice((0.1, 0.5, 2)))
            command.send(getattr(signal, by))
        done = command.result()
        fates.append(f"{by} {done.code}")
        early = done.code in (130, 138, 143) or "KeyboardInterrupt" in done.out  # before signals are handled
        assert early or done.code in (0, 75, 137), (options, fates, done.out)
        assert early or "Traceback" not in done.out, (options, fates, done.out)
        if done.code == 0:
            break
        if (workspace / "stopped.batches").exists():
            reached = max(batches(workspace, "stopped"))
        fates += damage_newest(workspace, draw)
    print(f"{len(fates)} fates: {', '.join(fates)}")  # shown with -rP
    assert done.code == 0, fates
    assert_equal(the_run(workspace, "whole"), the_run(workspace, "stopped"))
    micro_batches = max((int(o.partition("=")[2]) for o in options if o.startswith("accumulate=")), default=1)
    whole, stopped = (batches(workspace, name, micro_batches) for name in ("whole", "stopped"))
    assert stopped == whole


@pytest.mark.parametrize("parallel", ["parallel=ddp", "parallel=fsdp", "virtual_ranks=4"])
def test_chaos_on_several_processes(server, workspace, pictures, load, parallel, seed):
    """Some processes are stopped or killed at a step, or all are killed at any moment."""
    snippets.add(workspace, "digits/watched.py")
    draw = random.Random(f"{parallel} {seed}")
    models = MODELS if parallel == "parallel=ddp" else (MODELS[0], MODELS[2])  # running statistics are refused
    known = [some for some in OPTIONS if some != ("drop_last=false",)]  # refused for some sizes
    choices = (*draw.choice(models), *draw.choice(SETS), *some_options(draw, known))
    options = (*TASK, *SHORT, "epochs=6", *(o.replace("PICTURES", str(pictures)) for o in choices), f"seed={seed}")
    options, script = (*options, parallel), workspace / "train.py"
    counts = (1, 2, 4) if parallel == "virtual_ranks=4" else (2,)
    done = server.run_together(script, *options, "name=whole", BATCHES=str(workspace / "whole.batches"))
    assert done.code == 0, (options, done.out)

    fates: list[str] = []
    reached = 0
    for number in range(MOST + 1):
        how = (
            f"workers={draw.choice((0, 0, 2))}",
            f"save_every_steps={draw.choice((1, 2, 5, 'null'))}",
            f"keep_last={draw.choice((2, 3))}",
        )
        by, ranks = draw.choice(list(STOPS)), range(draw.choice(counts))
        struck = draw.sample(ranks, draw.randint(1, len(ranks)))
        at, moment = str(reached + draw.randint(0, 8)), draw.random() < 0.3
        env = {"BATCHES": str(workspace / "stopped.batches"), "WITH": by, "SLEEP": draw.choice(("0", "0.03"))}
        places = [{"AT": at if rank in struck and number < MOST and not moment else ""} for rank in ranks]
        commands = server.start_together(script, *options, *how, "name=stopped", "resume=auto", places=places, **env)
        if number < MOST and moment:
            by = "all"
            time.sleep(draw.random() * draw.choice((0.5, 2, 4)))
            for command in commands:
                command.send(signal.SIGKILL)
        ends = [command.result() for command in commands]
        codes = {end.code for end in ends}
        fates.append(f"{by} of {len(ranks)} {codes}")
        # A process whose neighbour is killed ends with 1.
        assert codes <= {0, 75} or 137 in codes <= {0, 1, 137}, (options, fates, [end.out for end in ends])
        assert not any("Traceback" in end.out for end in ends), (options, fates, [end.out for end in ends])
        if codes == {0}:
            break
        if (workspace / "stopped.batches").exists():
            reached = max(batches(workspace, "stopped"))
        fates += damage_newest(workspace, draw)
    print(f"{len(fates)} fates: {', '.join(fates)}")  # shown with -rP
    assert codes == {0}, fates
    whole, stopped = (the_run(workspace, name) for name in ("whole", "stopped"))
    assert (result(stopped), logged(stopped)) == (result(whole), logged(whole))
    may_differ = {"config", "files", "folder"} | ({"fingerprint"} if len(counts) > 1 else set())
    states = [load(max((run / "checkpoints").glob("step-*"))) for run in (whole, stopped)]
    assert difference(*({k: v for k, v in state.items() if k not in may_differ} for state in states)) is None
