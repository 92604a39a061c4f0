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
    image = decode(path, channels, max(height, width))
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        sides = zip((width, height), image.size, strict=True)
        scaled = [max(least, round(side * scale)) for least, side in sides]
        image = image.resize(scaled, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def decode(path: str, channels: int, least: int) -> Image.Image:
    """Return the picture as 8-bit grey or RGB, turned as its camera says, transparency on black.

    A JPEG file is decoded at a half, a quarter or an eighth of its size, which saves most of the
    time, as long as both sides keep `least` pixels.
    """
    with opened(path) as file:
        if file.format == "JPEG":
            file.draft("L" if channels == 1 else "RGB", (least, least))
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):  # 16 bits or more: PIL would clip
            values = np.asarray(image, dtype=np.float64)
            most = 65535 if image.mode.startswith("I") else 1
            most = max(most, values.max(initial=0)) if image.mode != "F" else most
            image = Image.fromarray((255 * np.clip(values / most, 0, 1)).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return image.convert("L" if channels == 1 else "RGB")
