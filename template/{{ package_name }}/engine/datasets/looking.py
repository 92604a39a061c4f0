"""Look at training pictures: their size, channels, range and transparency."""

import contextlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import UserError
from ..text import logger
from .pictures import (
    JUDGED,
    Decoding,
    covering,
    is_deep,
    is_transparent,
    measured,
    opened,
    size_of,
)
from .windows import Samples

_LOOKED_AT = 500  # pictures whose headers decide size and channels


def look(
    samples: Samples,
    max_size: int,
    colour_share: float,
    wanted: Sequence[float] | str | None,
    background: str | None,
    forgiving: bool,
) -> tuple[int, int, int, list[float] | None]:
    """Return channels, height, width and range for all pictures, from the headers of some.

    All but the first argument are as `ImageFolder` takes them. Raises `UserError`.
    """
    sizes, deep, transparent, colours, cut = [], list[str](), list[str](), 0, 0
    for index in np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT)).astype(int):
        path = samples[index]
        with contextlib.suppress(*[UserError] * forgiving), opened(path) as image:
            sizes.append(size_of(image))
            colours += _has_colour(image)
            cut += not is_deep(image) and ";16" in str(
                [tile[3] for tile in getattr(image, "tile", ())]
            )
            deep += [path] if is_deep(image) else []
            transparent += [path] if is_transparent(image) else []
    middle = np.median(np.array(sizes or [(1, 1)]), axis=0)
    middle *= min(1.0, max_size / middle.max())
    has_colour = colours > 0 and colours >= colour_share * len(sizes)
    if colours and not has_colour:
        logger.warning(
            f"{colours} of {len(sizes)} pictures have colour. They become grey, like the others. "
            "data.channels=3 keeps colours."
        )
    if cut:
        logger.warning(
            f"{cut} of {len(sizes)} pictures have colours of 16 bits, of which Pillow reads the upper 8. "
            "Save each colour as a grey picture to keep all bits."
        )
    if transparent and not forgiving:
        _judge_background(transparent[:JUDGED], background or "black")
    found = None if wanted is None or forgiving else measured(samples, deep, wanted)
    return 3 if has_colour else 1, max(1, round(middle[0])), max(1, round(middle[1])), found


def _has_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")


def _judge_background(paths: Sequence[str], background: str) -> None:
    """Warn if transparent pictures become one colour."""
    decoding = Decoding(background=background)
    flat = [path for path in paths if _is_flat(covering(path, 3, 64, 64, decoding))]
    if flat:
        logger.warning(
            f"{len(flat)} of {len(paths)} transparent pictures become one colour, such as {flat[0]}. "
            f"Set another colour than data.background={background}."
        )


def _is_flat(image: Image.Image) -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]
