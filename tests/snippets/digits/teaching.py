"""Tasks that hold networks."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from .task import Classification


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))


class Taught(Classification):
    """A frozen teacher learns statistics while it trains, and counts how often it is asked."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.teachers = {"one": [network().requires_grad_(False)]}
        self.calls = 0

    def training_step(self, model, batch, ctx):
        images, _ = batch
        self.calls += 1
        (teacher,) = self.teachers["one"]
        assert teacher.training == ctx.training
        return {**super().training_step(model, batch, ctx), "match": mse_loss(model(images), teacher(images))}

    def state_dict(self):
        return {"teacher": self.teachers["one"][0].state_dict(), "calls": self.calls}

    def load_state_dict(self, state):
        self.teachers["one"][0].load_state_dict(state["teacher"])
        self.calls = state["calls"]


class Resting(Taught):
    """Its teacher never trains. It keeps what a validation finds, which is the wish of `after_validation`."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.teachers["one"][0].eval()

    def training_step(self, model, batch, ctx):
        (teacher,) = self.teachers["one"]
        assert not teacher.training
        self.calls += not ctx.training
        return Classification.training_step(self, model, batch, ctx)

    def after_validation(self, model, values, ctx):
        assert not self.loss.training
        assert self.calls == 4 * ctx.step  # a validation has 4 batches


class Learning(Classification):
    """Holds weights that get a gradient."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.heads = [network()]

    def training_step(self, model, batch, ctx):
        return {"loss": self.loss(model(batch[0]) + self.heads[0](batch[0]), batch[1])}


class Weighing(Classification):
    """Holds a parameter of its own."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, model, batch, ctx):
        return {"loss": self.loss(model(batch[0]) * self.scale, batch[1])}


class AsModule(nn.Module, Classification):
    """A module as in Lightning, with a head."""

    def __init__(self, loss: nn.Module) -> None:
        nn.Module.__init__(self)
        Classification.__init__(self, loss)
        self.head = network()

    def training_step(self, model, batch, ctx):
        return {"loss": self.loss(self.head(batch[0]), batch[1]) + 0 * model(batch[0]).sum()}


class Stepping(Learning):
    """Trains its weights itself."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.optimizer = torch.optim.SGD(self.heads[0].parameters(), lr=0.1)

    def after_step(self, model, optimizer, ctx):
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self):
        return {"head": self.heads[0].state_dict()}

    def load_state_dict(self, state):
        self.heads[0].load_state_dict(state["head"])
