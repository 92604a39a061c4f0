"""How long a command takes until it answers, and until its first training step."""

from __future__ import annotations

import argparse
import compileall

from .common import Bars, Cost, Table, measure, project, ratio, shown

SCRIPT = """
import torch
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
torch.nn.functional.cross_entropy(model(torch.randn(64, 64)), torch.randint(10, (64,))).backward()
optimizer.step()
"""
STEP = """
import os, sys
sys.argv[0] = "train.py"
from digits.engine import signals
signals.install()
from digits.engine.launch import launch

def work(job):
    from digits.engine.loop import Loop
    from digits.engine.train import train

    class First(Loop):
        def after_step(self):
            os._exit(0)

    return train(job, First)

launch(work)
"""
"""train.py, but it ends after its first step, like the script."""


def run(options: argparse.Namespace) -> list[Table]:
    compileall.compile_dir(project(), quiet=1)
    mlp = ["data=synthetic", "data.shape=[1,8,8]", "model=mlp"]
    commands = {
        "`import torch`": ["-c", "import torch"],
        "`python train.py --help`": ["train.py", "--help"],
        "`python train.py lrr=0.1` (a mistake)": ["train.py", "lrr=0.1"],
        "first step of a script with torch alone": ["-c", SCRIPT],
        "first step of `train.py model=mlp data=synthetic`": ["-c", STEP, *mlp],
        "first step of `train.py` (digits, CNN)": ["-c", STEP],
    }
    floors = [0, 0, 0, 3, 3, 3]
    codes = [0, 0, 2, 0, 0, 0]
    costs: list[list[Cost]] = [[] for _ in commands]
    for turn in range(2 if options.quick else 11):
        for arguments, code, column in zip(commands.values(), codes, costs, strict=True):
            cost, _ = measure(arguments, code)
            if turn:  # the first turn writes byte code and reads from the disk
                column.append(cost)
    table = Table(
        "Start-up",
        ["what", "CPU time", "time", "CPU time to …", "ratio"],
        note="Each row is a whole process, from the call to its end. Byte code is cached. A first step includes "
        "the config, the data, the check of a validation batch, and the run folder with its manifest.",
    )
    cpu = [[cost.cpu for cost in column] for column in costs]
    for place, name in enumerate(commands):
        floor = floors[place]
        names = list(commands)
        table.rows.append(
            (
                name,
                shown(cpu[place]),
                shown([cost.wall for cost in costs[place]]),
                "" if floor == place else names[floor],
                "" if floor == place else ratio(cpu[place], cpu[floor]),
            )
        )
    table.bars = Bars("Start-up", "CPU seconds", dict(zip(commands, cpu, strict=True)))
    return [table]
