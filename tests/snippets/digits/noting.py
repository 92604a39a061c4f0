"""A model and a task that write down each value of each micro-batch, as it is when it is logged."""

import json
import os
import signal
import time

import torch
from torch import nn

from .engine.api import Mean, record
from .task import Classification

RANK = os.environ.get("RANK", "0")
recorded = []


class Layer(nn.Module):
    """Used twice in each forward."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        y = self.linear(x).relu() * self.scale
        record("层 output", y.mean())
        record("positive", y.detach()[y > 0].mean(), n=(y > 0).sum())
        recorded.append(("层 output", y.mean().item(), len(x)))
        recorded.append(("positive", y[y > 0].mean().item(), (y > 0).sum().item()))
        return y


class Twice(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer, self.head = Layer(), nn.Linear(64, classes)

    def forward(self, x):
        record("scale", self.layer.scale)  # the optimizer changes it in place
        recorded.append(("scale", self.layer.scale.item(), len(x)))
        return self.head(self.layer(self.layer(x.flatten(1))))


class Noting(Classification):
    stopped = False

    def training_step(self, model, batch, ctx):
        images, labels = batch
        recorded.clear()
        if os.environ.get("ON") == RANK and not self.stopped:
            time.sleep(0.03)  # several processes vote on a stop after each step that takes so long
        logits = model(images)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        few = labels < 3
        loss1 = (losses * few).sum() / few.sum().clamp(min=1)
        values = {"loss": losses.mean(), "loss1": Mean(loss1, few.sum()), "loss2": losses.max()}
        if ctx.step % 4 == 1:
            values["now and then"] = losses.min()
        with open(f"{os.environ['NOTES']}/{RANK}.jsonl", "a") as file:
            for key, value, n in recorded:
                file.write(json.dumps([ctx.step, key, value, n]) + "\n")
            for key, value in values.items():
                value, n = value if isinstance(value, Mean) else (value, len(labels))
                file.write(json.dumps([ctx.step, key, value.item(), float(n)]) + "\n")
        if os.environ.get("AT") == str(ctx.step) and os.environ.get("ON", "0") == RANK and not self.stopped:
            self.stopped = True
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    def validation_step(self, model, batch, ctx):
        return super().training_step(model, batch, ctx)
