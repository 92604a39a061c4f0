"""Read a picture file as pixels. Look at some: size, channels, range and transparency."""

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps

from ..errors import UserError
from ..text import logger

_LOOKED_AT = 500  # pictures whose headers decide size and channels
_JUDGED = 32  # pictures that are decoded to judge a range or a background

_PACKAGE = __name__.split(".")[0]


class Decoding(NamedTuple):
    """How the values of a file become pixels."""

    range: tuple[float, float] | None = None
    """The values of more than 8 bits that become 0 and 255. Pixels are floats then. None: pixels are
    bytes. 255 stands for 65535 or the largest value above it; in a file of floats, for 1.0."""
    background: str | None = None
    """The colour behind transparent pixels. None: black."""


PLAIN = Decoding()


def check_decoding(range: Any, background: str | None) -> None:
    """Refuse values of `data.range` and `data.background` that cannot be. Raises `UserError`."""
    is_pair = isinstance(range, list) and len(range) == 2 and range[0] < range[1]
    if range not in (None, "auto") and not is_pair:
        raise UserError(f"data.range={range} must be [lowest, highest], auto or null.")
    try:
        ImageColor.getrgb(background or "black")
    except ValueError as error:
        raise UserError(f"data.background: {error}. Name one such as white or '#808080'.") from None


@contextlib.contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """Open a picture file. Raises `UserError` if it is damaged."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # not the picture's fault
            raise
        raise UserError(
            f"The picture {path} cannot be read ({error}). Repair it or leave it out: python -m {_PACKAGE} "
            "check-data … --out FILE, then data.leave_out=FILE. A resume also needs allow_changed_data=true."
        ) from error


def is_deep(image: Image.Image) -> bool:
    """Return True for one channel of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def size_of(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an open picture, turned as its camera says."""
    # For a PNG without this entry, getexif() would decode the whole file.
    exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
    turned = exif.get(0x0112, 1) in (5, 6, 7, 8)  # orientation
    return image.size if turned else (image.height, image.width)


def read(path: str, channels: int, height: int, width: int) -> np.ndarray:
    """Return pixels, uint8, shape [H, W, channels], scaled to cover `height` by `width`.

    H or W may be larger: the caller cuts. Raises `UserError` for a damaged file.
    """
    image = covering(path, channels, height, width)
    return np.asarray(image).reshape(image.height, image.width, channels)


def covering(
    path: str, channels: int, height: int, width: int, decoding: Decoding = PLAIN
) -> Image.Image:
    """Return a picture, scaled to cover `height` by `width`. A JPEG file is decoded at a half, a
    quarter or an eighth of its size if that suffices. This saves most of the time."""
    return to_cover(upright(path, channels, decoding, max(height, width)), height, width)


def to_cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return a picture, scaled to cover `height` by `width`."""
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        sides = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(sides, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return image


def upright(path: str, channels: int, decoding: Decoding, least: int | None = None) -> Image.Image:
    """Return a picture as 8-bit grey or RGB, turned as its camera says.

    With a `decoding.range`, a picture of more than 8 bits is grey, float32. least: a JPEG file may
    be decoded at any size of at least so many pixels. Raises `UserError` for a damaged file.
    """
    mode = "L" if channels == 1 else "RGB"
    with opened(path) as file:
        if file.format == "JPEG" and least is not None:
            file.draft(mode, (least, least))
        image = ImageOps.exif_transpose(file)
        if is_deep(image):  # PIL would clip
            image = Image.fromarray(_scaled(_values(image, file), decoding, image.mode))
        if is_transparent(image):
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, decoding.background or "black")
            image = Image.alpha_composite(ground, image)
        return image if image.mode == "F" else image.convert(mode)


def extent(path: str) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a picture, or None if it has 8 bits.

    NaN and infinite values do not count. Raises `UserError` for a damaged file.
    """
    with opened(path) as file:
        values = _values(file, file) if is_deep(file) else np.empty(0)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else None


def measured(
    paths: Sequence[str], deep: Sequence[str], wanted: Sequence[float] | str
) -> list[float] | None:
    """Return the range of pictures of more than 8 bits, or None without such pictures.

    deep: some paths of such pictures. wanted: [lowest, highest], or "auto" to measure all `paths`.
    """
    if not deep:
        if wanted == "auto":
            return None
        raise UserError(f"data.range={wanted} has no use: pictures have only 8 bits. Set auto.")
    if wanted == "auto":
        logger.info(f"Measuring data.range: {len(paths):,} pictures of more than 8 bits")
    judged = paths if wanted == "auto" else deep[:_JUDGED]
    extents = np.array([found for found in in_threads(extent, judged) if found] or [(0.0, 1.0)])
    lows, highs = extents.T
    low, high = (lows.min(), highs.max()) if wanted == "auto" else map(float, wanted)
    used = highs.clip(low, high) - lows.clip(low, high)
    if np.median(used) < (high - low) / 8:
        usual = f"{np.median(lows):g} to {np.median(highs):g}"
        logger.warning(
            f"Most pictures use less than an eighth of data.range=[{low:g},{high:g}]: they hold about "
            f"{usual}. Set data.range to the values you need."
        )
    return [float(low), float(high if high > low else low + 1)]


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield `function(item)` for each item, in order. Decoding and scaling let other threads run."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), 1024):  # a few at a time, so that a million fit in memory
            stop = min(start + 1024, len(items))
            yield from pool.map(function, [items[index] for index in range(start, stop)])


def _values(image: Image.Image, file: Image.Image) -> np.ndarray:
    """Return the values of a deep picture, float64 [H, W]. image: of `file`, perhaps turned."""
    values = np.asarray(image)
    tags = getattr(file, "tag_v2", {})  # of a TIFF file: bits, and the kind of numbers
    if image.mode == "I" and tags.get(258) == (32,) and tags.get(339, (1,)) == (1,):
        values = values.view(np.uint32)  # PIL takes them for signed numbers
    return values.astype(np.float64)


def _scaled(values: np.ndarray, decoding: Decoding, mode: str) -> np.ndarray:
    """Return values from 0 to 255: float32 if there is a range, else uint8. NaN becomes 0."""
    if decoding.range is None:
        most = 1 if mode == "F" else max(65535, values.max(initial=0))
        return (255 * np.clip(values / most, 0, 1)).astype(np.uint8)
    low, high = decoding.range
    shares = (np.nan_to_num(values, nan=low) - low) / (high - low)
    return (255 * np.clip(shares, 0, 1)).astype(np.float32)


def look(
    samples: Sequence[str],
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
            cut += not is_deep(image) and ";16" in str([t[3] for t in getattr(image, "tile", ())])
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
        _judge_background(transparent[:_JUDGED], background or "black")
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
    ranges: list[Any] = [covering(path, 3, 64, 64, decoding).getextrema() for path in paths]
    flat = [p for p, own in zip(paths, ranges, strict=True) if all(a == b for a, b in own)]
    if flat:
        logger.warning(
            f"{len(flat)} of {len(paths)} transparent pictures become one colour, such as {flat[0]}. "
            f"Set another colour than data.background={background}."
        )
