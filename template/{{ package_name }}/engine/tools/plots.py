"""Matplotlib, imported only where something is drawn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..errors import UserError


def new_figure(width: float = 7, height: float = 4) -> tuple[Any, Any]:
    """A figure and its axes, in inches, drawn without a screen. Raises `UserError`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Drawing needs the package 'matplotlib': uv add matplotlib.") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG; its folder is made where it is missing. Raises `UserError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
            warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
            figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
