"""A task with both hooks, each of which changes what the checkpoint holds, and notes its calls in the file CALLS."""

import os

import torch

from .stopping import Stopping


class Hooked(Stopping):
    def __init__(self, loss, class_names=None):
        super().__init__(loss, class_names)
        loss.register_buffer("weight_of_loss", torch.ones(()))

    def training_step(self, model, batch, ctx):
        assert model.training
        values = super().training_step(model, batch, ctx)
        return {**values, "loss": values["loss"] * self.loss.weight_of_loss}

    def after_step(self, model, optimizer, ctx):
        assert optimizer.param_groups[0]["params"][0].grad is not None
        for weight in model.parameters():
            weight.mul_(1 + 0.1 * torch.rand(()))
        for group in optimizer.param_groups:
            group["weight_decay"] *= 0.8
        model.eval()
        self.note("step", ctx, ends_epoch=ctx.ends_epoch)

    def after_validation(self, model, values, ctx):
        assert not model.training
        self.loss.weight_of_loss.uniform_(0.5, 1.5)
        self.note("validation", ctx, loss=values["val/loss"], ends_epoch=ctx.ends_epoch)

    def note(self, what, ctx, **more):
        rank = int(os.environ.get("RANK", "0"))
        assert (ctx.folder is None) == (rank > 0)
        assert not torch.is_grad_enabled()
        drawn = torch.rand(()).item()
        with open(f"{os.environ['CALLS']}-{rank}", "a") as file:
            file.write(f"{what} {ctx.step} {ctx.epoch} {ctx.training} {drawn} {more}\n")
