"""`curves.png`: a run's loss, metrics and learning rates over its steps. Without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run.metrics import read_metrics
from .plots import new_panels, save_figure

_LEGEND = 10  # a longer legend would hide the curves

_KINDS = (("train/", "training"), ("val/", "validation"))


def draw_curves(folder: Path, monitor: str, best: float | None) -> Path:
    """Draw the `metrics.jsonl` of a run folder; returns the picture. Raises `UserError`."""
    rows = read_metrics(folder)
    keys = dict.fromkeys(tag.split("/", 1)[1] for row in rows for tag in row if _is_drawn(tag))
    losses = [key for key in keys if "loss" in key.lower()]
    validated = {tag[4:] for row in rows for tag in row if tag.startswith("val/")}
    # What is never validated, such as grad_norm, has scales of its own.
    metrics = [key for key in keys if key not in losses and (key in validated or not validated)]
    panels = [("loss", losses), ("metrics", metrics)]
    panels = [(name, keys) for name, keys in panels if keys]
    figure, axes = new_panels(len(panels) + 1)
    for panel, (name, names) in zip(axes, panels, strict=False):
        _draw_values(panel, rows, names)
        panel.set_ylabel(names[0] if len(names) == 1 else name)
        if best is not None and monitor.split("/", 1)[1] in names:
            _mark_best(panel, monitor.split("/", 1)[1], _points(rows, monitor), best)
    _draw_rates(axes[-1], rows)
    axes[-1].set_xlabel("optimizer step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_title(f"{folder.parent.name} · {folder.name}", loc="left", fontsize=10)
    path = folder / "curves.png"
    save_figure(figure, path)
    return path


def _is_drawn(tag: str) -> bool:
    return tag.startswith(("train/", "val/"))


def _points(rows: Iterable[Mapping[str, Any]], tag: str) -> tuple[list[int], list[float]]:
    """Steps and values; what is not finite leaves a gap."""
    found = [(row["step"], float(row[tag])) for row in rows if tag in row]
    return [s for s, _ in found], [v if math.isfinite(v) else math.nan for _, v in found]


def _draw_values(axes: Any, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Training thin, validation strong, both of a key in one colour."""
    seen: list[float] = []
    for number, key in enumerate(keys):
        for kind, what in _KINDS:
            steps, values = _points(rows, f"{kind}{key}")
            seen += values
            if not steps:
                continue
            strong = kind == "val/"
            axes.plot(
                steps,
                values,
                color=f"C{number}",
                linewidth=1.8 if strong else 1.0,
                alpha=1.0 if strong else 0.55,
                marker="o" if (len(steps) <= 40 and strong) or len(steps) == 1 else "",
                markersize=3.5,
                label=what if len(keys) == 1 else f"{key}, {what}",
            )
    finite = [value for value in seen if not math.isnan(value)]
    if finite and min(finite) > 0 and max(finite) > 30 * min(finite):
        axes.set_yscale("log")
    _add_legend(axes)


def _mark_best(axes: Any, key: str, points: tuple[list[int], list[float]], best: float) -> None:
    for step, value in zip(*points, strict=True):
        if value == best:
            axes.plot(step, value, marker="*", markersize=13, color="#d4a017",
                      markeredgecolor="white", linestyle="", label=f"best {key} {best:.4g}")  # fmt: skip
            _add_legend(axes)
            return


def _draw_rates(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    tags = list(dict.fromkeys(tag for row in rows for tag in row if tag.startswith("lr/")))
    for tag in tags:
        steps, values = _points(rows, tag)
        axes.plot(
            steps, values, linewidth=1.4, marker="o" if len(steps) == 1 else "", label=tag[3:]
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("lr")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if len(tags) > 1:
        _add_legend(axes)


def _add_legend(axes: Any) -> None:
    if 0 < len(axes.lines) <= _LEGEND:
        axes.legend(fontsize=8, frameon=False)
