"""A loss that follows the mean of the logits while it trains."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(10))

    def forward(self, logits, labels):
        if self.training:
            self.centre.lerp_(logits.detach().mean(dim=0), 0.1)
        return cross_entropy(logits - self.centre, labels)
