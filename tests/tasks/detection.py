"""Pictures with none to three squares each: targets of different sizes, joined by an own collate."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import Dataset

from .engine.api import Data, Mean, Task


class Squares(Dataset):
    def __init__(self, name):
        self.key = len(name)

    def __len__(self):
        return 128 if self.key == 3 else 384

    def __getitem__(self, index):
        """image float32 [1, 16, 16]; boxes int64 [N, 4], x and y of two corners."""
        rng = np.random.default_rng([self.key, index])
        image = torch.rand(1, 16, 16) / 4
        corners = rng.permutation(9)[: rng.integers(4)]
        boxes = torch.tensor([[c % 3 * 5, c // 3 * 5, c % 3 * 5 + 3, c // 3 * 5 + 3] for c in corners])
        for x, y, right, bottom in boxes.tolist():
            image[0, y:bottom, x:right] += 0.6
        return image, boxes.reshape(-1, 4).long()


class Scenes(Data):
    def split(self, name):
        return None if name == "test" else Squares(name)

    @staticmethod
    def collate(samples):
        return torch.stack([image for image, _ in samples]), [boxes for _, boxes in samples]


class Corners(nn.Module):
    """For each pixel, whether a box begins there."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 1)
        )

    def forward(self, images):
        return self.layers(images)[:, 0]


class Detection(Task):
    def training_step(self, model, batch, ctx):
        images, boxes = batch
        logits = model(images)
        target = torch.zeros_like(logits)
        for number, of_image in enumerate(boxes):
            target[number, of_image[:, 1], of_image[:, 0]] = 1
        values = {"loss": bce(logits, target, pos_weight=logits.new_tensor(20.0))}
        found = ((logits > 0) & (target > 0)).sum()
        # Averaged over boxes, of which a batch may hold none.
        return {**values, "recall": Mean(found / target.sum().clamp(min=1), target.sum())}
