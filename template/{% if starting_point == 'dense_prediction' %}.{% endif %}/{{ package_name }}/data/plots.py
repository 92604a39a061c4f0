"""Your pictures: what `Task.images` shows."""

import torch
from torch import Tensor

from .moving_textures import Pair


def draw_flow(batch: Pair, *flows: Tensor) -> Tensor:
    """Both pictures and, as colours, each of `flows` (float [B, 2, H, W]), side by side: uint8
    [B, 3, H, (2 + number of flows) · W]. A direction is a hue, and more motion more colour."""
    # Imported here, as it takes a second or more that the first step need not wait for.
    from torchvision.utils import flow_to_image

    pictures = [draw_picture(batch.first), draw_picture(batch.second)]
    # Converted together, so that all have the same scale.
    colours = flow_to_image(torch.cat(flows).float()).chunk(len(flows))
    return torch.cat([*pictures, *colours], dim=3)


def draw_picture(picture: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] from normalised pixels, float [B, C, H, W]."""
    return (picture * 64 + 128).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
