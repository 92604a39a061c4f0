"""A small convolutional net: an example of a model."""

from torch import Tensor, nn


class CNN(nn.Module):
    """A net for any number of channels and classes and any picture size.

    `shape` (channels, height, width) and `classes` come from the data, `width` and `dropout` from
    the config.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        channels, height, skip = shape[0], min(shape[1:]), 1
        while height // skip > 40:  # the first layer shrinks large pictures, to limit the cost
            skip *= 2
        self.stem = block(channels, width, kernel=3 if skip == 1 else 2 * skip - 1, stride=skip)
        self.stages = nn.Sequential(
            block(width, width),
            block(width, 2 * width, stride=2),
            block(2 * width, 2 * width),
            block(2 * width, 4 * width, stride=2),
            block(4 * width, 4 * width),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """images: float, shape [B, C, H, W]. Returns logits, shape [B, classes]."""
        features = self.stages(self.stem(images))
        # The mean says how much of the picture a feature fills, the maximum whether it is there.
        pooled = (features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))) / 2
        return self.head(self.dropout(pooled))


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
