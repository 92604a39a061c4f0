"""Compare with lightning-hydra-template on its default task: MNIST and an MLP of 68k parameters."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import environment
from .common import Bars, Cost, Table, measure, project, ratio, shown, temporary

SOURCE = "https://github.com/ashleve/lightning-hydra-template"
PACKAGES = ("lightning", "hydra-colorlog", "rootutils", "rich")

BARE = """
import sys
import numpy as np, torch
from torch.nn.functional import cross_entropy

torch.use_deterministic_algorithms(True)

def read(name, skip):
    return torch.from_numpy(np.fromfile(f"{sys.argv[1]}/MNIST/raw/{name}", np.uint8)[skip:].copy())

images = (read("train-images-idx3-ubyte", 16).reshape(-1, 784).float() / 255 - 0.1307) / 0.3081
labels = read("train-labels-idx1-ubyte", 8).long()
layers = []
for inputs, outputs in ((784, 64), (64, 128), (128, 64)):
    layers += [torch.nn.Linear(inputs, outputs), torch.nn.BatchNorm1d(outputs), torch.nn.ReLU()]
model = torch.nn.Sequential(*layers, torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
for epoch in range(int(sys.argv[2])):
    model.train()
    for chosen in torch.randperm(55000).split(128):
        optimizer.zero_grad()
        cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[55000:]).argmax(1) == labels[55000:]).float().mean().item()
    print(accuracy, flush=True)
"""


def make_mnist(folder: Path, train: int = 60_000, test: int = 10_000) -> None:
    """Write files in torchvision's layout of MNIST: ten noisy shapes; a model learns about 97 % of them."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    coarse = draw.normal(size=(10, 12, 7, 7)).astype(np.float32)
    shapes = coarse.repeat(4, axis=2).repeat(4, axis=3)  # ten figures, each written in twelve ways
    for name, count in (("train", train), ("t10k", test)):
        labels = draw.integers(10, size=count)
        images = shapes[labels, draw.integers(12, size=count)]
        images += 3 * draw.standard_normal(size=images.shape, dtype=np.float32)
        pixels = np.clip(100 + 25 * images, 0, 255).astype(np.uint8)
        sizes = np.array([2051, count, 28, 28], dtype=">i4")
        (raw / f"{name}-images-idx3-ubyte").write_bytes(sizes.tobytes() + pixels.tobytes())
        heads = np.array([2049, count], dtype=">i4")
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(heads.tobytes() + labels.astype(np.uint8).tobytes())


def run(options: argparse.Namespace) -> list[Table]:
    folder = temporary()
    make_mnist(folder / "data")
    contestants = {"script with torch alone": _script(folder), "ours": _ours(folder)}
    failed = {}
    theirs = "lightning-hydra-template"
    if not options.quick:
        try:
            contestants[theirs] = _theirs(folder, options.template or SOURCE)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            failed[theirs] = str(error)
    short, long = 1, 4
    costs: dict[str, dict[int, list[Cost]]] = {name: {short: [], long: []} for name in contestants}
    accuracies: dict[str, list[float]] = {name: [] for name in contestants}
    for command in contestants.values():  # warm-up: writes byte code, reads from the disk
        command(short)
    for _ in range(1 if options.quick else 4):
        for epochs in (short, long):
            for name, command in contestants.items():
                cost, accuracy = command(epochs)
                costs[name][epochs].append(cost)
                if epochs == short:
                    accuracies[name].append(accuracy)
    table = Table(
        "One epoch of MNIST: 55,000 pictures to train on, 5,000 to validate, the same MLP of 68k parameters",
        ["what", "an epoch, CPU time", "an epoch", "the whole command, CPU time", "the whole command", "accuracy"],
        note="An epoch is training, validation and a checkpoint. Its time is a third of the difference between four "
        "epochs and one. All use batch 128, fused Adam at 1e-3, deterministic algorithms and the same network. "
        "Ours has no random shifts, because theirs has none. Theirs has no test after training. Theirs logs to csv, "
        "ours to TensorBoard. "
        "MNIST's files are generated (the same for all), so the accuracy is not that of the real MNIST.",
    )
    epochs = {
        name: [
            Cost(*((b - a) / (long - short) for a, b in zip(one, more, strict=True)))
            for one, more in zip(both[short], both[long], strict=True)
        ]
        for name, both in costs.items()
    }
    for name in contestants:
        cells = []
        for column in (epochs, {n: both[short] for n, both in costs.items()}):
            for part in ("cpu", "wall"):
                values = [getattr(cost, part) for cost in column[name]]
                ours = [getattr(cost, part) for cost in column["ours"]]
                cells.append(shown(values) if name == "ours" else f"{shown(values)}, ours {ratio(ours, values)}")
        table.rows.append((name, *cells, f"{statistics.median(accuracies[name]):.3f}"))
    for name, reason in failed.items():
        table.rows.append((name, f"did not run ({reason})", "", "", "", ""))
    whole = {f"{name}: whole command": [c.cpu for c in both[short]] for name, both in costs.items()}
    parts = {f"{name}: an epoch": [c.cpu for c in column] for name, column in epochs.items()}
    table.bars = Bars("One epoch of MNIST", "CPU seconds", {**parts, **whole})
    return [table]


Command = Callable[[int], tuple[Cost, float]]
"""A function that trains a number of epochs. It returns the cost and the last validation accuracy."""


def _script(folder: Path) -> Command:
    def command(epochs: int) -> tuple[Cost, float]:
        cost, said = measure(["-c", BARE, str(folder / "data"), str(epochs)])
        return cost, float(said.split()[-1])

    return command


def _ours(folder: Path) -> Command:
    runs = project() / "runs" / "mnist"
    (project() / "digits" / "models" / "dense.py").write_text(DENSE)
    arguments = [
        *("train.py", "name=mnist", "data=mnist", f"data.root={folder / 'data'}", "data.val_size=5000", "data.shift=0"),
        *("model=mlp", "~model.hidden", "~model.dropout", "model._target_=.models.dense.Dense"),
        *("optimizer._target_=torch.optim.Adam", "optimizer.weight_decay=0", "lr=0.001", "scheduler=constant"),
        *("batch_size=128", "drop_last=false"),
    ]

    def command(epochs: int) -> tuple[Cost, float]:
        cost, _ = measure([*arguments, f"epochs={epochs}"])
        lines = (next(runs.iterdir()) / "metrics.jsonl").read_text().splitlines()
        shutil.rmtree(runs)
        return cost, next(v["val/acc"] for v in map(json.loads, reversed(lines)) if "val/acc" in v)

    return command


DENSE = """from torch import Tensor, nn


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in ((784, 64), (64, 128), (128, 64)):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
"""
"""The default network of lightning-hydra-template, as an owner's file."""


def _theirs(folder: Path, source: str) -> Command:
    python = environment.install(*PACKAGES)
    root = folder / "template"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", source, root], check=True, stderr=subprocess.DEVNULL)
    arguments = [
        *("src/train.py", f"data.data_dir={folder / 'data'}", "test=false", "logger=csv"),
        *("trainer.deterministic=true", "+model.optimizer.fused=true"),
    ]

    def command(epochs: int) -> tuple[Cost, float]:
        cost, _ = measure([*arguments, f"trainer.max_epochs={epochs}"], cwd=root, python=python)
        table = next((root / "logs").rglob("metrics.csv"))
        with open(table, encoding="utf-8") as file:
            accuracy = [float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"]][-1]
        shutil.rmtree(root / "logs")
        return cost, accuracy

    return command
