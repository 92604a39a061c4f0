"""Your losses: add a module here, and a file in configs/loss/ that names it as `.losses.NAME`."""

from torch import Tensor, nn


class PixelCrossEntropy(nn.Module):
    """Cross-entropy of the pixels: their mean in a picture, then the mean over pictures.

    torch's own loss for pictures is not deterministic on a GPU. Its loss for a list of pixels is.
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """logits: float [B, classes, H, W]; masks: int64 [B, H, W], -1 for pixels that do not count.
        Returns a scalar."""
        pixels = logits.movedim(1, -1).flatten(0, -2)
        losses = nn.functional.cross_entropy(
            pixels, masks.flatten(), ignore_index=-1, reduction="none"
        )
        counts = (masks >= 0).flatten(1).sum(dim=1).clamp(min=1)
        return (losses.view(len(masks), -1).sum(dim=1) / counts).mean()


class Dice(nn.Module):
    """1 - Dice coefficient, with probabilities instead of hard labels (Milletari et al. 2016).

    It is the mean over classes and pictures, so a small shape counts as much as a large one.
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """logits: float [B, classes, H, W]; masks: int64 [B, H, W], -1 for pixels that do not count.
        Returns a scalar."""
        counts = (masks >= 0)[:, None]
        probabilities = logits.float().softmax(dim=1) * counts
        targets = nn.functional.one_hot(masks.clamp(min=0), logits.shape[1]).movedim(-1, 1) * counts
        common = (probabilities * targets).sum(dim=(2, 3))
        total = (probabilities + targets).sum(dim=(2, 3))
        # The added 1 makes the coefficient 1 if a class is neither present nor predicted.
        return 1 - ((2 * common + 1) / (total + 1)).mean()
