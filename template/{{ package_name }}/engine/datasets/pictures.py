"""Read a picture file as pixels."""

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""The errors that PIL raises for damaged files."""


def unreadable(path: str, error: Exception) -> UserError:
    return UserError(f"The picture {path} cannot be read ({error}). Repair or remove it.")


def read(path: str, channels: int, height: int, width: int) -> np.ndarray:
    """Return pixels, uint8, shape [H, W, channels], scaled to cover `height` by `width`.

    H or W may be larger: the caller cuts. Raises `UserError` for a damaged file.
    """
    try:
        image = decode(path, channels, max(height, width))
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        scaled = (
            max(width, round(image.width * scale)),
            max(height, round(image.height * scale)),
        )
        image = image.resize(scaled, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def decode(path: str, channels: int, least: int) -> Image.Image:
    """Return the picture as 8-bit grey or RGB, turned as its camera says, transparency on black.

    A JPEG file is decoded at a half, a quarter or an eighth of its size, which saves most of the
    time, as long as both sides keep `least` pixels.
    """
    with Image.open(path) as file:
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
