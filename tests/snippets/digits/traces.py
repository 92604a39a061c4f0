"""Models and tasks that an evaluation, a picture or a trial pass would change."""

import os
import signal
import threading

import torch
from torch import nn
from torch.nn import functional

from .task import Classification


class Net(nn.Module):
    """A plain net with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

    def forward(self, images):
        return self.body(images)


class Renormalised(Net):
    """Its embedding has a largest norm, which torch applies in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(16, 10, max_norm=1.0)

    def forward(self, images):
        return self.body(images) + self.rows(images.flatten(1)[:, 20].long() % 16)


class Momentum(Net):
    """A second weight follows the first in each forward pass (He et al. 2020), and calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Parameter(torch.zeros(10, 64), requires_grad=False)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        with torch.no_grad():
            self.slow.lerp_(self.body[1].weight, 0.1)
        return self.body(images) + functional.linear(images.flatten(1), self.slow) / (1 + self.calls)

    def get_extra_state(self):
        return torch.tensor(self.calls)

    def set_extra_state(self, state):
        self.calls = int(state)


class Merging(Net):
    """Merges a low-rank weight in eval mode, and takes it out again for training."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.randn(10, 64))
        self.merged = False

    def train(self, mode: bool = True):
        if self.merged == mode:
            self.body[1].weight.data += self.low.data * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)


class Special(Net):
    """Holds tensors that cannot be written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0).expand(10), persistent=False)
        with torch.inference_mode():
            self.register_buffer("shift", torch.zeros(10))

    def forward(self, images):
        return self.body(images) * self.scale + self.shift


class Sparse(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("graph", torch.eye(10).to_sparse())


class Drawing(Classification):
    """Calls the model for pictures and texts."""

    def images(self, model, batch, ctx):
        model(batch[0])
        return super().images(model, batch, ctx)

    def show(self, model, batch, ctx):
        return {"text": str(model(batch[0] + 1).sum().item())}


class Freezing(Classification):
    def after_step(self, model, optimizer, ctx):
        if ctx.step == 3:
            model.body[2].eval()


class Stopped(Freezing):
    """Stops in the second batch of the validation after step 3, or in step 5 if validations come later."""

    seen = 0

    def validation_step(self, model, batch, ctx):
        self.seen = self.seen + 1 if ctx.step == 3 else 0
        if self.seen == 2 and "AT" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().validation_step(model, batch, ctx)

    def training_step(self, model, batch, ctx):
        if ctx.step == 4 and os.environ.get("AT") == "val_every_epochs=2":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(model, batch, ctx)


class Listing(list):
    def __init__(self, first, second) -> None:
        super().__init__([first, second])


class Locked(Classification):
    """Cannot be copied, and holds a list that is made with two arguments."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.lock, self.list = threading.Lock(), Listing(1, 2)
        self.frozen = torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval()))


class Critic(Classification):
    """Trains a network of its own in its step."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)
        self.critic = nn.Linear(10, 1)
        self.optimizer = torch.optim.SGD(self.critic.parameters(), lr=0.1)

    def training_step(self, model, batch, ctx):
        logits = model(batch[0])
        if ctx.training:
            self.optimizer.zero_grad()
            self.critic(logits.detach()).square().mean().backward()
            self.optimizer.step()
        return {"loss": self.loss(logits, batch[1]) + self.critic(logits).mean()}

    def state_dict(self):
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])


class Shared(Classification):
    """Its head belongs to the class."""

    head = nn.Linear(10, 10)

    def training_step(self, model, batch, ctx):
        return {"loss": self.loss(self.head(model(batch[0])), batch[1])}


class Clamping(Shared):
    """Its hook could train the head, but does not."""

    def after_step(self, model, optimizer, ctx):
        model.body[1].bias.clamp_(-1, 1)


class Forgetful(Classification):
    """Saves another key than it loads."""

    def state_dict(self):
        return {"saved": 1}

    def load_state_dict(self, state):
        self.loaded = state["loaded"]


class Normalised(nn.Module, Classification):
    """A module with a norm of its own."""

    def __init__(self, loss: nn.Module) -> None:
        nn.Module.__init__(self)
        Classification.__init__(self, loss)
        self.norm = nn.BatchNorm1d(10, affine=False)

    def training_step(self, model, batch, ctx):
        return {"loss": self.loss(self.norm(model(batch[0])), batch[1])}
