"""A small U-Net (Ronneberger et al. 2015): an example of a model."""

import math

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """A U-Net for pictures of any size: a logit per class for each pixel.

    `shape` (channels, height, width) and `classes` come from the data, `width` and `depth` from
    the config.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.stem = block(shape[0], width)
        self.down = nn.ModuleList(block(w, 2 * w, stride=2) for w in widths[:-1])
        # Bilinear upsampling would not be deterministic on a GPU.
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.join = nn.ModuleList(block(2 * w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, classes, 1)
        # For optimizer.layer_decay: names of modules, those of one layer in a list.
        down = [f"down.{level}" for level in range(depth)]
        up = [[f"up.{level}", f"join.{level}"] for level in reversed(range(depth))]
        self.layers_in_order = ["stem", *down, *up, "head"]

    def forward(self, images: Tensor) -> Tensor:
        """images: float, shape [B, C, H, W]. Returns logits, shape [B, classes, H, W]."""
        height, width = images.shape[2:]
        least = 1 << len(self.down)  # sides are padded to a multiple of this
        features = self.stem(nn.functional.pad(images, (0, -width % least, 0, -height % least)))
        skipped = []
        for down in self.down:
            skipped.append(features)
            features = down(features)
        for level in reversed(range(len(self.up))):
            both = [self.up[level](features), skipped[level]]
            features = self.join[level](torch.cat(both, dim=1))
        return self.head(features)[:, :, :height, :width]


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Two convolutions. Group norm, unlike batch norm, does not depend on the batch size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(math.gcd(8, outputs), outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(math.gcd(8, outputs), outputs),
        nn.ReLU(),
    )
