"""Displacement between two pictures: an example of a model with two inputs."""

import torch
from torch import Tensor, nn


class FlowNet(nn.Module):
    """A U-Net over how much the features of two pictures agree at each displacement.

    `shape` (channels, height, width) comes from the data, `width` and `reach` from the config.
    Comparing features with moved ones follows FlowNetC (Dosovitskiy et al. 2015).
    """

    def __init__(self, shape: tuple[int, int, int], width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.features = nn.Sequential(
            block(shape[0], width, stride=2),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(1, width),
        )
        self.join = block((2 * reach + 1) ** 2 + width, 2 * width)
        self.down = block(2 * width, 4 * width, stride=2)
        self.middle = block(4 * width, 4 * width)
        # Bilinear upsampling would not be deterministic on a GPU.
        self.up = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge = block(4 * width, 2 * width)
        self.fine = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """first, second: float, shape [B, C, H, W]. Returns, in pixels to the right and down, how
        far each pixel of the first has moved in the second: [B, 2, H, W]."""
        height, width = first.shape[2:]
        pad = (0, -width % 4, 0, -height % 4)
        one, two = (self.features(nn.functional.pad(x, pad)) for x in (first, second))
        coarse = self.join(torch.cat([agreement(one, two, self.reach), one], dim=1))
        deep = self.up(self.middle(self.down(coarse)))
        flow = self.head(self.fine(self.merge(torch.cat([deep, coarse], dim=1))))
        return flow[:, :, :height, :width]


def agreement(one: Tensor, two: Tensor, reach: int) -> Tensor:
    """The mean product of the features of `one` with those of `two`, moved by up to `reach` in each
    direction: [B, (2 reach + 1)², H, W] from [B, C, H, W]."""
    height, width = one.shape[2:]
    padded = nn.functional.pad(two, (reach,) * 4)
    places = range(2 * reach + 1)
    moved = [padded[:, :, y : y + height, x : x + width] for y in places for x in places]
    return torch.stack([(one * other).mean(dim=1) for other in moved], dim=1)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Group norm, unlike batch norm, computes the same for any size of the batch."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(1, outputs),
        nn.ReLU(),
    )
