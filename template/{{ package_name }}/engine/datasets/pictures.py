"""Read a picture file as pixels."""

import contextlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError


@contextlib.contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """Open a picture file. Raises `UserError` if it is damaged."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The picture {path} cannot be read ({error}). Repair or remove it."
        ) from error


def read(path: str, channels: int, height: int, width: int) -> np.ndarray:
    """Return pixels, uint8, shape [H, W, channels], scaled to cover `height` by `width`.

    H or W may be larger: the caller cuts. Raises `UserError` for a damaged file.
    """
    image = covering(path, channels, height, width)
    return np.asarray(image).reshape(image.height, image.width, channels)


def covering(path: str, channels: int, height: int, width: int) -> Image.Image:
    """Return a picture, scaled to cover `height` by `width`, as 8-bit grey or RGB.

    It is turned as its camera says, with black for transparency. A JPEG file is decoded at a half, a
    quarter or an eighth of its size if that suffices, which saves most of the time.
    """
    mode, least = "L" if channels == 1 else "RGB", max(height, width)
    with opened(path) as file:
        if file.format == "JPEG":
            file.draft(mode, (least, least))
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):  # 16 bits or more: PIL would clip
            values = np.asarray(image, dtype=np.float64)
            most = 1 if image.mode == "F" else max(65535, values.max(initial=0))
            image = Image.fromarray((255 * np.clip(values / most, 0, 1)).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        image = image.convert(mode)
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        sides = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(sides, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return image
