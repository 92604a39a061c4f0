"""Random changes to training pictures: torchvision's transforms, keyed by sample."""

import contextlib
import inspect
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import rng
from ..errors import UserError, nearest, one_line
from .pictures import Decoding, opened, upright


class Augment:
    """Transforms of `torchvision.transforms.v2`, applied in order to one picture at a time.

    steps: for each transform the name of its class, `{name: options}`, or a transform of yours.
    shape: of the result, [C, H, W]. If a transform takes a size, it is H × W unless you give one.
    """

    def __init__(self, steps: Sequence[Any], shape: tuple[int, int, int]) -> None:
        """Raises `UserError`."""
        from torchvision.transforms import v2  # the import takes seconds

        self.shape = tuple(shape)
        self.steps = [_made(v2, step, shape[1:]) for step in steps]
        self.cuts_box = bool(self.steps) and isinstance(self.steps[0], v2.RandomResizedCrop)
        """Whether the first transform scales a random box of a picture, of any size."""

    def __call__(self, picture: Tensor, key: int) -> Tensor:
        """Return the changed picture. `key` decides all random draws.

        picture: uint8 or, from 0 to 255, float32. Raises `UserError` if a transform returns another
        shape or type.
        """
        rng.seed_all(rng.fold_in(key, rng.Domain.SAMPLE))  # another key than that of shift and flip
        is_float = picture.is_floating_point()
        changed = picture / 255 if is_float else picture  # transforms expect floats from 0 to 1
        for step in self.steps:
            changed = step(changed)
        if changed.shape != self.shape or changed.dtype != picture.dtype:
            shapes = (f"{value.dtype} {list(value.shape)}" for value in (picture, changed))
            raise UserError(
                "data.augment turns {} into {}. Leave out the transform that does.".format(*shapes)
            )
        return changed * 255 if is_float else changed


def in_own_size(path: Any, channels: int, decoding: Decoding) -> Tensor:
    """Return a picture in its own size: [channels, H, W], uint8, or float32 from 0 to 255.

    path: of a file, or a file in memory (`io.BytesIO`).
    torchvision decodes a JPEG file in three quarters of the time that Pillow takes, to equal pixels.
    """
    with opened(path) as file:
        turned = file.format == "JPEG" and file.getexif().get(0x0112, 1) != 1
        is_plain = file.format == "JPEG" and file.mode in ("L", "RGB") and not turned
    if is_plain:
        from torchvision.io import ImageReadMode, decode_jpeg

        mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
        with contextlib.suppress(RuntimeError):  # it is damaged, and Pillow says how
            in_memory = isinstance(path, io.BytesIO)
            content = np.array(path.getbuffer()) if in_memory else np.fromfile(path, np.uint8)
            return decode_jpeg(torch.from_numpy(content), mode=mode)
    pixels = torch.from_numpy(np.array(upright(path, channels, decoding)))
    return pixels.reshape(*pixels.shape[:2], -1).permute(2, 0, 1).expand(channels, -1, -1)


def _made(v2: Any, step: Any, size: Sequence[int]) -> Any:
    """Return the transform that an entry of `data.augment` names. Raises `UserError`."""
    if callable(step):  # built from a `_target_`
        return step
    is_pair = isinstance(step, Mapping) and len(step) == 1
    name, options = next(iter(step.items())) if is_pair else (str(step), {})
    kinds = {key: kind for key, kind in vars(v2).items() if inspect.isclass(kind)}
    kind = kinds.get(str(name))
    if kind is None or not issubclass(kind, torch.nn.Module):
        raise UserError(
            f"data.augment: torchvision.transforms.v2 has no transform '{name}'.{nearest(str(name), kinds)}"
        )
    try:
        options = dict(options or {})
        if "size" in inspect.signature(kind).parameters:
            options.setdefault("size", list(size))
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.augment: {name} cannot be made: {one_line(error)}.") from error
