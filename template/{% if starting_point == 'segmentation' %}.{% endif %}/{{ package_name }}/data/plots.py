"""Your pictures: what `Task.images` shows."""

import torch
from torch import Tensor


def draw_masks(images: Tensor, *masks: Tensor) -> Tensor:
    """Put each picture and its masks side by side. A mask is drawn over the picture in colours.

    images: float [B, 1 or 3, H, W]. masks: int64 [B, H, W] each; class 0 has no colour.
    Returns float [B, 3, H, (1 + number of masks) · W], from 0 to 1.
    """
    low, high = images.aminmax()
    pixels = ((images.float() - low) / (high - low).clamp(min=1e-6)).expand(-1, 3, -1, -1)
    shown = [pixels]
    for mask in masks:
        colours = PALETTE.to(mask.device)[mask % len(PALETTE)].movedim(-1, 1)
        shown.append(torch.where(mask[:, None] > 0, 0.4 * pixels + 0.6 * colours, pixels))
    return torch.cat(shown, dim=3)


PALETTE = torch.tensor(
    [[0, 0, 0], [230, 25, 75], [60, 180, 75], [0, 130, 200], [255, 225, 25], [245, 130, 48],
     [145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [170, 110, 40]]
) / 255  # fmt: skip
