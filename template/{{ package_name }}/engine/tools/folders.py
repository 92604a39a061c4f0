"""Find run folders; write results and figures. Without torch."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import replacing, shown
from ..run.find import is_run

_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC")
"""Fonts for letters that matplotlib's own font lacks, if one is installed."""


def runs_below(folder: Path) -> list[Path]:
    """Return the folder if it is a run, and all runs below it, oldest first. Raises `UserError`."""
    walked = os.walk(folder)  # it passes over what cannot be read
    found = sorted(filter(is_run, {folder, *(Path(place) for place, _, _ in walked)}))
    found = [run for run in found if not any(p[0] == "." for p in run.relative_to(folder).parts)]
    if not found:
        raise UserError(f"No run is in {shown(folder)}. Name a run folder, such as runs/NAME/TIME.")
    return found


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make `folder`; turn an I/O error within the block into a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        text = f"Cannot write to {shown(folder)}: {error.strerror or error}. Choose another folder."
        raise UserError(text) from error


def new_figure(width: float = 7, height: float = 4, panels: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure, sized in inches, and its axes below each other. Raises `UserError`."""
    try:
        from matplotlib import font_manager, rcParams
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Drawing needs matplotlib. Install it: uv add matplotlib") from None
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
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix[1:] or "png")
