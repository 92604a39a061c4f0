"""Motion between two pictures: an example of a model with two inputs."""

import torch
from torch import Tensor, nn


class FlowNet(nn.Module):
    """Compare the features of two pictures at each displacement, then find the motion with a U-Net.

    `shape` (channels, height, width) comes from the data, `width` and `reach` from the config. The
    comparison follows FlowNetC (Dosovitskiy et al. 2015).
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
        """Return the motion from `first` to `second`, in pixels to the right and down.

        first, second: float [B, C, H, W]. Returns float [B, 2, H, W].
        """
        height, width = first.shape[2:]
        pad = (0, -width % 4, 0, -height % 4)
        one, two = (self.features(nn.functional.pad(x, pad)) for x in (first, second))
        coarse = self.join(torch.cat([agreement(one, two, self.reach), one], dim=1))
        deep = self.up(self.middle(self.down(coarse)))
        flow = self.head(self.fine(self.merge(torch.cat([deep, coarse], dim=1))))
        return flow[:, :, :height, :width]


def agreement(one: Tensor, two: Tensor, reach: int) -> Tensor:
    """Return the mean product of the features of `one` and of `two`, at each displacement.

    one, two: float [B, C, H, W]. `two` is moved by up to `reach` in each direction. Returns float
    [B, (2 · reach + 1)², H, W].
    """
    height, width = one.shape[2:]
    padded = nn.functional.pad(two, (reach,) * 4)
    places = range(2 * reach + 1)
    moved = [padded[:, :, y : y + height, x : x + width] for y in places for x in places]
    return torch.stack([(one * other).mean(dim=1) for other in moved], dim=1)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A convolution. Group norm, unlike batch norm, does not depend on the batch size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(1, outputs),
        nn.ReLU(),
    )
