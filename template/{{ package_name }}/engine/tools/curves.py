"""`curves.png`: a run's loss, metrics and learning rates over its steps. Without torch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run.metrics import read_metrics
from .plots import new_figure, save_figure

Rows = Sequence[Mapping[str, Any]]

_LEGEND = 10  # a longer legend would hide the curves

_KINDS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("train/", "training", {"linewidth": 1.0, "alpha": 0.55, "markersize": 3.5}),
    ("val/", "validation", {"linewidth": 1.8, "markersize": 3.5}),
)


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
            _draw_value(panel, rows, key, f"C{number}", "" if len(names) == 1 else f"{key}, ")
        _choose_scale(panel)
        panel.set_ylabel(names[0] if len(names) == 1 else what)
        if best is not None and monitor[4:] in names:
            _mark_best(panel, rows, monitor, best)
        _add_legend(panel)
    _draw_rates(axes[-1], rows, [tag for tag in tags if tag.startswith("lr/")])
    axes[-1].set_xlabel("optimizer step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_title(f"{folder.parent.name} · {folder.name}", loc="left", fontsize=10)
    path = folder / "curves.png"
    save_figure(figure, path)
    return path


def _points(rows: Rows, tag: str) -> tuple[list[int], list[float]]:
    """Return steps and values; a value that is not finite leaves a gap."""
    found = [(row["step"], float(row[tag])) for row in rows if tag in row]
    return [s for s, _ in found], [v if math.isfinite(v) else math.nan for _, v in found]


def _draw_value(axes: Any, rows: Rows, key: str, color: str, prefix: str) -> None:
    """Draw training thin and validation strong, in one colour."""
    for kind, what, style in _KINDS:
        steps, values = _points(rows, f"{kind}{key}")
        marker = "o" if len(steps) <= (40 if kind == "val/" else 1) else ""
        if steps:
            label = f"{prefix}{what}"
            axes.plot(steps, values, color=color, marker=marker, label=label, **style)


def _choose_scale(axes: Any) -> None:
    """Take a logarithmic scale if all values are positive and far apart."""
    drawn = [v for line in axes.lines for v in line.get_ydata() if not math.isnan(v)]
    if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
        axes.set_yscale("log")


def _mark_best(axes: Any, rows: Rows, monitor: str, best: float) -> None:
    step = next((row["step"] for row in rows if row.get(monitor) == best), None)
    if step is not None:
        label = f"best {monitor[4:]} {best:.4g}"
        axes.plot(step, best, "*", markersize=13, color="#d4a017", label=label)


def _draw_rates(axes: Any, rows: Rows, tags: Sequence[str]) -> None:
    for tag in tags:
        steps, rates = _points(rows, tag)
        axes.plot(steps, rates, linewidth=1.4, marker="o" if len(steps) == 1 else "", label=tag[3:])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("lr")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if len(tags) > 1:
        _add_legend(axes)


def _add_legend(axes: Any) -> None:
    if 0 < len(axes.lines) <= _LEGEND:
        axes.legend(fontsize=8, frameon=False)
