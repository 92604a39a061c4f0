"""`curves.png`: a run's loss, metrics and learning rates over its steps. Without torch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run.folder import read_metrics
from .folders import new_figure, save_figure

Rows = Sequence[Mapping[str, Any]]


def draw_curves(folder: Path, monitor: str, best: float | None) -> Path:
    """Draw the `metrics.jsonl` of a run folder; return the picture's path. Raises `UserError`."""
    rows = read_metrics(folder)
    tags = dict.fromkeys(tag for row in rows for tag in row)
    keys = dict.fromkeys(t.split("/", 1)[1] for t in tags if t.startswith(("train/", "val/")))
    losses = [key for key in keys if "loss" in key.lower()]
    validated = {tag[4:] for tag in tags if tag.startswith("val/")}
    # Values that are never validated, such as grad_norm, have other scales than the metrics.
    metrics = [key for key in keys if key not in losses and (key in validated or not validated)]
    panels = [(what, names) for what, names in (("loss", losses), ("metrics", metrics)) if names]
    count = len(panels) + 1
    figure, axes = new_figure(8, 0.8 + 2.3 * count, count)
    for panel, (what, names) in zip(axes, panels, strict=False):
        for number, key in enumerate(names):
            prefix = "" if len(names) == 1 else f"{key}, "
            color = f"C{number}"
            plot(panel, rows, f"train/{key}", f"{prefix}training", color=color, lw=1, alpha=0.55)
            plot(panel, rows, f"val/{key}", f"{prefix}validation", 40, color=color, lw=1.8)
        drawn = [v for line in panel.lines for v in line.get_ydata() if math.isfinite(v)]
        if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
            panel.set_yscale("log")
        panel.set_ylabel(names[0] if len(names) == 1 else what)
        if best is not None and monitor[4:] in names:
            step = next(row["step"] for row in rows if row.get(monitor) == best)
            label = f"best {monitor[4:]} {best:.4g}"
            panel.plot(step, best, "*", markersize=13, color="#d4a017", label=label)
    last = axes[-1]
    for tag in tags:
        if tag.startswith("lr/"):
            plot(last, rows, tag, tag[3:], lw=1.4)
    last.set(ylim=(0, None), ylabel="lr", xlabel="optimizer step")
    last.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    last.xaxis.get_major_locator().set_params(integer=True)
    title = f"{folder.parent.name} · {folder.name}"
    axes[0].set_title(title, loc="left", fontsize=10, parse_math=False)
    path = folder / "curves.png"
    save_figure(figure, path)
    return path


def plot(axes: Any, rows: Rows, tag: str, label: str, markers: int = 1, **style: Any) -> None:
    """Draw a value over the steps, with at most `markers` markers."""
    points = [(row["step"], row[tag]) for row in rows if tag in row]
    if points:
        marker = "." if len(points) <= markers else ""
        axes.plot(*zip(*points, strict=True), marker=marker, label=label, **style)
