"""Your pictures: what `Task.images` shows."""

import torch
from torch import Tensor

from .moving_textures import Pair


def draw_flow(batch: Pair, *flows: Tensor) -> Tensor:
    """Put both pictures and all flows side by side. Hue is direction, more colour is more motion.

    flows: float [B, 2, H, W] each. Returns uint8 [B, 3, H, (2 + number of flows) · W].
    """
    # This import takes a second or more. Here, the first step does not wait for it.
    from torchvision.utils import flow_to_image

    pictures = [draw_picture(batch.first), draw_picture(batch.second)]
    # All flows are converted together, so they have the same scale.
    colours = flow_to_image(torch.cat(flows).float()).chunk(len(flows))
    return torch.cat([*pictures, *colours], dim=3)


def draw_picture(picture: Tensor) -> Tensor:
    """Return uint8 [B, 3, H, W] for normalised pixels, float [B, C, H, W]."""
    return (picture * 64 + 128).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
