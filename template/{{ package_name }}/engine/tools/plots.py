"""Figures as PNG files. Matplotlib is imported only when something is drawn."""

import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError
from .folders import writing_to

_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC")
"""Fonts for letters that matplotlib's own font lacks, if one is installed."""


def new_figure(width: float = 7, height: float = 4, panels: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure, sized in inches, and its axes below each other. Raises `UserError`."""
    try:
        from matplotlib import font_manager, rcParams
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "Drawing needs the package 'matplotlib'. Install it: uv add matplotlib"
        ) from None
    installed = set(font_manager.get_font_names())
    rcParams["font.family"] = ["sans-serif", *(name for name in _FONTS if name in installed)]
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.align_ylabels()
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure with its legends as PNG; make its folder if needed. Raises `UserError`."""
    for axes in figure.axes:
        if 0 < len(axes.lines) <= 12:  # a longer legend would hide the curves
            axes.legend(fontsize=8)
    with writing_to(path.parent), warnings.catch_warnings():
        # Matplotlib draws boxes for letters that the font lacks.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        figure.savefig(path, dpi=120)
