"""The pictures of a batch or a validation as grids, with captions; drawn by PIL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..api import Pictures

SMALL, LARGE = 96, 160
"""Pixels: squares are enlarged until a side has SMALL, and reduced until none has more than LARGE;
others until they have as many pixels."""

GAP, LINE = 8, 16

GREY, GREEN, RED = (96, 96, 96), (27, 120, 55), (198, 40, 40)

Caption = Sequence[tuple[str, tuple[int, int, int]]]
"""Lines of text, each with its colour."""


class Collected:
    """The pictures to show of one batch or one validation, at most `count` of each tag."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pictures: dict[str, Pictures] = {}
        self.ranges: dict[str, tuple[Tensor, Tensor] | None] = {}

    def add(self, shown: Mapping[str, Tensor | Pictures]) -> None:
        for tag, value in shown.items():
            pictures = value if isinstance(value, Pictures) else Pictures(_batch(value))
            if pictures.images.ndim not in (3, 4):
                continue
            kept = self.pictures.get(tag)
            if kept is None:
                self.ranges[tag] = _range(channels_first(pictures.images))
            elif pictures.score is None and len(kept.images) >= self.count:
                continue
            elif kept.images.shape[1:] != pictures.images.shape[1:]:
                continue  # of another size: they fit into no grid
            # What is kept is copied, so that a view does not keep the whole batch.
            joined = pictures if kept is None else _joined(kept, _first(pictures, self.count))
            self.pictures[tag] = _first(joined, self.count)

    def grids(self, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Each tag with its grid; here the host waits for the device."""
        for tag, pictures in self.pictures.items():
            images = _bytes(channels_first(pictures.images), self.ranges[tag])
            captions = _captions(pictures, names)
            if pictures.score is not None:
                is_shown = (pictures.score > 0).cpu().numpy()
                images = images[is_shown]
                captions = [c for c, keep in zip(captions, is_shown, strict=True) if keep]
            if len(images):
                yield tag, draw(images, captions)


def _batch(images: Tensor) -> Tensor:
    """A batch of one, of a single picture."""
    is_one = images.ndim == 2 or images.ndim == 3
    return images.unsqueeze(0) if is_one else images


def _first(pictures: Pictures, count: int) -> Pictures:
    """The `count` with the highest scores, or the first ones where there are no scores."""
    if pictures.score is None:
        return Pictures._make(None if v is None else v[:count].clone() for v in pictures)
    best = pictures.score.topk(min(count, len(pictures.score))).indices
    return Pictures._make(None if v is None else v[best] for v in pictures)


def _joined(one: Pictures, other: Pictures) -> Pictures:
    pairs = zip(one, other, strict=True)
    return Pictures._make(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)


def _range(images: Tensor) -> tuple[Tensor, Tensor] | None:
    """The least and largest value of each channel, [C]; None for integers."""
    if not images.is_floating_point():
        return None
    return images.amin(dim=(0, 2, 3)).float(), images.amax(dim=(0, 2, 3)).float()


def _bytes(images: Tensor, span: tuple[Tensor, Tensor] | None) -> np.ndarray:
    """uint8 [N, H, W, C], on the host, from [N, C, H, W]."""
    if span is None:
        images = images * 255 if images.dtype == torch.bool else images.clamp(0, 255)
    else:
        low, high = (end.view(-1, 1, 1) for end in span)
        if low.min() >= 0 and high.max() <= 1:
            low, high = torch.zeros_like(low), torch.ones_like(high)
        images = (images.float() - low) * (255 / (high - low).clamp(min=1e-12))
        images = images.nan_to_num().round().clamp(0, 255)
    return images.to(torch.uint8).movedim(1, -1).cpu().numpy()


def _captions(pictures: Pictures, names: Sequence[str]) -> list[Caption]:
    targets, labels, probabilities = (
        [] if values is None else values.cpu().tolist()
        for values in (_classes(pictures.target), pictures.label, pictures.probability)
    )

    def named(number: int) -> str:
        name = names[number] if 0 <= number < len(names) else str(number)
        return name if all(ord(c) < 0x250 for c in name) else f"class {number}"  # of PIL's font

    captions: list[Caption] = []
    for i in range(len(pictures.images)):
        if not labels:
            captions.append([(named(targets[i]), GREY)] if targets else [])
            continue
        is_right = not targets or targets[i] == labels[i]
        text = named(labels[i]) + (f"  {probabilities[i]:.1%}" if probabilities else "")
        lines = [(text, GREEN if is_right else RED)]
        if targets:
            lines.append(("" if is_right else f"is {named(targets[i])}", GREY))
        captions.append(lines)
    return captions


def _classes(target: Tensor | None) -> Tensor | None:
    return target.argmax(dim=1) if target is not None and target.ndim == 2 else target


def channels_first(images: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] from [B, C, H, W], [B, H, W, C] or [B, H, W]; a view."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.shape[1] not in (1, 3, 4) and images.shape[-1] in (1, 3, 4):
        images = images.movedim(-1, 1)
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1]


def draw(images: np.ndarray, captions: Sequence[Caption]) -> np.ndarray:
    """One picture, uint8 [height, width, 3], of several, uint8 [N, H, W, 1 or 3]."""
    height, width = images.shape[1:3]
    side = math.sqrt(height * width)  # of a square of this area: several may lie side by side
    factor = math.ceil(SMALL / side) if side <= LARGE else LARGE / side
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    lines = max((len(caption) for caption in captions), default=0)
    columns = math.ceil(math.sqrt(len(images)))
    step_x, step_y = max(size[0], SMALL) + GAP, size[1] + lines * LINE + GAP
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, pixels in enumerate(images):
        tile = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        if tile.size != size:
            is_smaller = size[0] < tile.width
            how = Image.Resampling.BOX if is_smaller else Image.Resampling.NEAREST
            tile = tile.resize(size, how)
        x, y = GAP + number % columns * step_x, GAP + number // columns * step_y
        sheet.paste(tile, (x, y))
        for line, (text, colour) in enumerate(captions[number] if captions else ()):
            text = _fitting(text, font, step_x - GAP)
            pen.text((x, y + size[1] + 1 + line * LINE), text, fill=colour, font=font)
    return np.asarray(sheet)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
