"""Your losses: add a module here, and a file in configs/loss/ that names it as `.losses.NAME`."""

from torch import Tensor, nn


class PixelCrossEntropy(nn.Module):
    """Cross-entropy, the mean over all pixels.

    torch's own loss for pictures is not deterministic on a GPU. Its loss for a list of pixels is.
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """logits: float [B, classes, H, W]; masks: int64 [B, H, W]. Returns a scalar."""
        pixels = logits.movedim(1, -1).flatten(0, -2)
        return nn.functional.cross_entropy(pixels, masks.flatten())


class Dice(nn.Module):
    """1 - Dice coefficient, with probabilities instead of hard labels (Milletari et al. 2016).

    It is the mean over classes and pictures, so a small shape counts as much as a large one.
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """logits: float [B, classes, H, W]; masks: int64 [B, H, W]. Returns a scalar."""
        probabilities = logits.float().softmax(dim=1)
        targets = nn.functional.one_hot(masks, logits.shape[1]).movedim(-1, 1)
        common = (probabilities * targets).sum(dim=(2, 3))
        total = (probabilities + targets).sum(dim=(2, 3))
        # The added 1 makes the coefficient 1 if a class is neither present nor predicted.
        return 1 - ((2 * common + 1) / (total + 1)).mean()
