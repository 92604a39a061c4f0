"""Points, a linear model, and a task for every loss of torch: `inputs` says what the loss compares."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from .engine.api import Data, Mean, Task, UserError

CLASSES, CELLS = 4, 9


class Points(Data):
    """Of unequal classes. The last validation batch is smaller than the others."""

    info = {"classes": CLASSES, "shape": (6,)}

    def split(self, name):
        if name == "test":
            return None
        draw = torch.Generator().manual_seed(3)
        x = torch.randn(46 + 23, 6, generator=draw)
        y = (x[:, 0] > 0.8).long() + 2 * (x[:, 1] > 1.0).long()
        part = slice(46) if name == "train" else slice(46, None)
        return TensorDataset(x[part], y[part])


def model() -> nn.Module:
    return nn.Linear(6, CLASSES * CELLS)


def inputs(kind, out, x, y):
    """What a loss compares. out: [B, 36] of the model; x: [B, 6]; y: int64 [B]."""
    few, cells = out[:, :CLASSES], out.view(-1, CLASSES, 3, 3)
    signs = x[:, 0].sign()
    if kind == "classes":
        return few, y
    if kind == "log_classes":
        return few.log_softmax(1), y
    if kind == "cells":  # as in segmentation, and 3 is nothing
        return cells, (x[:, :1] * torch.linspace(-2, 2, CELLS) + x[:, 1:2]).abs().long().clamp(max=3).view(-1, 3, 3)
    if kind == "log_cells":
        cells, labels = inputs("cells", out, x, y)
        return cells.log_softmax(1), labels
    if kind == "shares":
        return few, x[:, :CLASSES].softmax(1)
    if kind == "log_shares":
        return few.log_softmax(1), x[:, :CLASSES].softmax(1)
    if kind == "logs":
        return few.log_softmax(1), x[:, :CLASSES].log_softmax(1)
    if kind == "bits":
        return few, (x[:, :CLASSES] > 0).float()
    if kind == "probabilities":
        return few.sigmoid(), (x[:, :CLASSES] > 0).float()
    if kind == "values":
        return few, x[:, :CLASSES]
    if kind == "counts":
        return few, x[:, :CLASSES].abs().round()
    if kind == "gaussian":
        return few, x[:, :CLASSES], out[:, CLASSES : 2 * CLASSES].exp()
    if kind == "signs":
        return few, x[:, :CLASSES].sign()
    if kind == "ranking":
        return few[:, 0], few[:, 1], signs
    if kind == "cosine":
        return few, x[:, :CLASSES], signs
    if kind == "triplet":
        return few, x[:, :CLASSES], x[:, 2:]
    if kind == "labels":  # of several classes, ended by -1
        return few, torch.stack([y, *[-torch.ones_like(y)] * (CLASSES - 1)], dim=1)
    if kind == "features":
        return out, y
    if kind == "texts":
        lengths = y % 3 + 1
        steps = out.view(-1, CELLS, CLASSES).log_softmax(2).transpose(0, 1)
        labels = torch.stack([y % 3 + 1, (y + 1) % 3 + 1, (y + 2) % 3 + 1], dim=1)
        return steps, labels, torch.full_like(y, CELLS), lengths
    raise UserError(f"Unknown kind {kind}.")


class AnyLoss(Task):
    """`loss` of `kind`; plus `add` · mean of out², if it is not 0. A `Mean` over `tokens`, if they are not 0."""

    def __init__(self, loss: nn.Module, kind: str, add: float = 0.0, tokens: int = 0) -> None:
        self.loss, self.kind, self.add, self.tokens = loss, kind, add, tokens

    def training_step(self, model, batch, ctx):
        out = model(batch[0])
        loss = self.loss(*inputs(self.kind, out, *batch))
        if self.add:
            loss = loss + self.add * out.square().mean()
        return {"loss": Mean(loss, self.tokens * len(out)) if self.tokens else loss}


class Weighted(nn.Module):
    """What torch computes, without a word about the weights."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels, self.weight)


class WeightedMean(Weighted):
    """The same, which says what it is a mean over."""

    def forward(self, logits, labels):
        return Mean(super().forward(logits, labels), self.weight[labels].sum())


class InBatch(nn.Module):
    """Each sample against all others of its batch."""

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits @ logits.T, torch.arange(len(logits)))


class Noisy(nn.Module):
    """Draws a number for each sample, as a variational autoencoder does."""

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits + torch.randn_like(logits), labels)


class Sampled(nn.Module):
    """Compares the logits with draws of its own, as the loss of a GAN does."""

    def forward(self, logits, labels):
        return logits.square().mean() + 9 * torch.randn(len(logits)).square().mean()
