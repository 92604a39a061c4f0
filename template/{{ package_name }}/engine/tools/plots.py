"""Matplotlib, imported only where something is drawn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError

_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
)
"""For letters that matplotlib's own font lacks, where one of them is installed."""


def new_figure(width: float = 7, height: float = 4) -> tuple[Any, Any]:
    """A figure and its axes, in inches, drawn without a screen. Raises `UserError`."""
    figure = _figure(width, height)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def new_panels(count: int) -> tuple[Any, list[Any]]:
    """A figure and its axes, below each other over one x axis. Raises `UserError`."""
    figure = _figure(8, 0.8 + 2.3 * count)
    panels = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    return figure, panels


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib import font_manager, rcParams
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Drawing needs the package 'matplotlib': uv add matplotlib.") from None
    installed = set(font_manager.get_font_names())
    rcParams["font.family"] = ["sans-serif", *(name for name in _FONTS if name in installed)]
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG; its folder is made where it is missing. Raises `UserError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
            warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
            figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
