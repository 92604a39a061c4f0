"""Grids of pictures with captions, drawn by PIL."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..api import Pictures

SMALL, LARGE = 96, 160
"""Enlarge tiles below SMALL pixels and shrink tiles above LARGE, by the root of their area."""

GAP, LINE, LETTER = 8, 16, 6
"""Pixels between tiles, of a line of text and of a letter."""

GREY, GREEN, RED = "#606060", "#1b7837", "#c62828"


class Collected:
    """The pictures to show of one batch or one validation, at most `count` of each tag."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        """names: of the classes, for captions."""
        self.count, self.names = count, names
        self.pictures: dict[str, Pictures] = {}
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, shown: Mapping[str, Tensor | Pictures]) -> None:
        """Add a batch: its first pictures, or those with the highest scores."""
        for tag, value in shown.items():
            if not isinstance(value, Pictures):
                value = Pictures(value if value.ndim == 4 else value.unsqueeze(0))
            if value.images.ndim not in (3, 4):
                continue
            images, kept = _as_rgb(value.images), self.pictures.get(tag)
            value = value._replace(images=images)
            if kept is None:
                self.ranges[tag] = images.amin(dim=(0, 2, 3)), images.amax(dim=(0, 2, 3))
                self.pictures[tag] = _first(value, self.count)
            elif kept.images.shape[1:] == images.shape[1:] and (
                value.score is not None or len(kept.images) < self.count
            ):
                pairs = zip(kept, _first(value, self.count), strict=True)
                both = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
                self.pictures[tag] = _first(Pictures._make(both), self.count)

    def grids(self) -> dict[str, np.ndarray]:
        """Return a grid for each tag, uint8 [height, width, 3]. The host waits for the device."""
        grids = {}
        for tag, pictures in self.pictures.items():
            if pictures.score is not None:
                is_shown = pictures.score > 0
                pictures = Pictures._make(None if v is None else v[is_shown] for v in pictures)
            if len(pictures.images):
                pixels = _bytes(pictures.images, *self.ranges[tag])
                grids[tag] = _draw(pixels, _captions(pictures, self.names))
        return grids


def _first(pictures: Pictures, count: int) -> Pictures:
    """Copy the `count` pictures with the highest scores, or the first ones without scores."""
    chosen = torch.arange(min(count, len(pictures.images)), device=pictures.images.device)
    if pictures.score is not None:
        chosen = pictures.score.topk(len(chosen)).indices
    return Pictures._make(None if values is None else values[chosen] for values in pictures)


def _as_rgb(images: Tensor) -> Tensor:
    """A view [B, 3, H, W] of [B, C, H, W], [B, H, W, C] or [B, H, W]."""
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[1] not in (1, 3, 4) and images.shape[-1] in (1, 3, 4):
        images = images.movedim(-1, 1)
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def _bytes(images: Tensor, low: Tensor, high: Tensor) -> np.ndarray:
    """uint8 [N, H, W, 3], on the host, from [N, 3, H, W] and the range of each channel."""
    if images.is_floating_point() or images.dtype == torch.bool:
        images, low, high = (x.float() for x in (images, low[:, None, None], high[:, None, None]))
        if low.min() < 0 or high.max() > 1:
            images = (images - low) / (high - low).clamp(min=1e-12)
        images = (images * 255).nan_to_num().round()
    return images.clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()


def _captions(pictures: Pictures, names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return the lines below each picture, each with its colour."""

    def named(number: int) -> str:
        name = names[number] if 0 <= number < len(names) else str(number)
        return name if all(ord(c) < 0x250 for c in name) else f"class {number}"  # PIL's font

    target = pictures.target
    if target is not None and target.ndim == 2:
        target = target.argmax(dim=1)
    columns = (target, pictures.label, pictures.probability)
    unknown = [None] * len(pictures.images)
    rows = zip(*(unknown if v is None else v.tolist() for v in columns), strict=True)
    captions = []
    for true, label, probability in rows:
        lines = []
        if label is not None:
            share = "" if probability is None else f"  {probability:.1%}"
            lines.append((named(label) + share, GREEN if true in (None, label) else RED))
        if true is not None:
            text = named(true) if label is None else f"is {named(true)}"
            lines.append(("" if true == label else text, GREY))
        captions.append(lines)
    return captions


def _draw(images: np.ndarray, captions: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
    """Draw pictures, uint8 [N, H, W, 3], as one, uint8 [height, width, 3]."""
    height, width = images.shape[1:3]
    side = math.sqrt(height * width)
    factor = math.ceil(SMALL / side) if side <= LARGE else LARGE / side
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    columns = math.ceil(math.sqrt(len(images)))
    lines = max(map(len, captions))
    step_x, step_y = max(size[0], SMALL) + GAP, size[1] + lines * LINE + GAP
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP + number % columns * step_x, GAP + number // columns * step_y
        sheet.paste(Image.fromarray(pixels).resize(size, how), (x, y))
        for line, (text, colour) in enumerate(caption):
            place = (x, y + size[1] + 1 + line * LINE)
            pen.text(place, text[: step_x // LETTER], fill=colour, font=font)
    return np.asarray(sheet)
