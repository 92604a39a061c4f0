"""Generated pictures, to try shapes, sizes and speeds."""

import numpy as np

from ..config.schema import Rule, check_value
from ..errors import UserError
from ..folds import split_by_fold
from .arrays import ArrayImages
from .windows import PictureData


class Synthetic(PictureData):
    """A fixed random pattern for each class, with noise: easy to learn, of any shape.

    shape: [channels, height, width]; size: number of training samples. Validation and test have a
    fifth as many; or `folds` and `fold` cut both for cross-validation. The pictures do not depend
    on the run's seed.
    """

    def __init__(
        self, shape: list[int], size: int, classes: int, folds: int | None = None, fold: int = 0
    ) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"data.shape={shape} must be [channels, height, width] of 1 or more.")
        check_value("data.size", size, Rule(at_least=1))
        check_value("data.classes", classes, Rule(at_least=2, at_most=1_000_000))
        names = [str(number) for number in range(classes)]
        self.info = {"shape": tuple(shape), "classes": classes, "class_names": names}
        channels, height, width = shape
        draw = np.random.Generator(np.random.PCG64(0))
        # Pattern and noise each take half the range of a byte, so that the sum fits.
        patterns = draw.integers(0, 128, (classes, height, width, channels), dtype=np.uint8)
        made = {}
        fifth = max(1, size // 5)
        for name, count in (("train", size), ("val", fifth), ("test", fifth)):
            labels = np.arange(count) % classes
            images = draw.integers(0, 128, (count, height, width, channels), dtype=np.uint8)
            images += patterns[labels]
            made[name] = images, labels
        if folds is not None:
            images, labels = (np.concatenate([made["train"][i], made["val"][i]]) for i in (0, 1))
            for name, part in zip(made, split_by_fold(labels, folds, fold), strict=False):
                made[name] = images[part], labels[part]
        self.splits = {n: ArrayImages(*made.pop(n), mean=0.5, std=0.25) for n in tuple(made)}
        self.still = self.splits["val"]
