"""Optimizers that keep state in unusual places."""

import threading

import numpy as np
import torch
from torch.optim import Optimizer


class Plain(Optimizer):
    """A step against the sign of the gradient, times `factor()`."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def factor(self):
        return 1.0

    @torch.no_grad()
    def step(self):
        factor = self.factor()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, -group["lr"] * factor)

    def move(self, p, scale):
        p.add_(p.grad.sign(), alpha=scale)


class Marked(Plain):
    """What differs between two objects and no step changes: a number, and a lock, which cannot be copied."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.mark, self.lock = id(self), threading.Lock()


class InGroup(Plain):
    """Smaller steps with time. The groups count."""

    def factor(self):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        return 1 / group["count"]


class UnderAName(Plain):
    """State that belongs to no parameter."""

    def factor(self):
        shared = self.state["shared"]
        shared["count"] = shared.get("count", torch.zeros((), dtype=torch.float64)) + 1
        return 1 / float(shared["count"])


class OfItsOwn(Plain):
    """A state dict of its own."""

    count = 0

    def factor(self):
        self.count += 1
        return 1 / self.count

    def state_dict(self):
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state_dict):
        state_dict = dict(state_dict)
        self.count = state_dict.pop("count")
        super().load_state_dict(state_dict)


class Double(Plain):
    """Moments in double precision, one of them in a list."""

    def move(self, p, scale):
        state = self.state[p]
        if not state:
            state["mean"] = torch.zeros_like(p, dtype=torch.float64)
            state["several"] = [torch.zeros_like(p, dtype=torch.float64)]
        for mean in (state["mean"], *state["several"]):
            mean.lerp_(p.grad.double(), 0.1)
            p.add_((mean * scale).to(p.dtype))


class Lossy(Plain):
    """Counts in an attribute. It matters long after the trial has ended."""

    count = 0

    def factor(self):
        self.count += 1
        return 0.0 if self.count > 1000 else 1.0


class Drawing(Plain):
    """A random generator of its own."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.generator = torch.Generator().manual_seed(0)

    def factor(self):
        return float(torch.rand((), generator=self.generator))


class Late(Plain):
    """Slow weights in an attribute (Zhang et al. 2019). They matter after the trial has ended."""

    slow = None

    @torch.no_grad()
    def step(self):
        weights = [p for group in self.param_groups for p in group["params"]]
        self.slow = self.slow or {"weights": [p.clone() for p in weights], "count": torch.zeros(())}
        super().step()
        self.slow["count"] += 1
        if self.slow["count"] % 100 == 0:
            for p, slow in zip(weights, self.slow["weights"], strict=True):
                p.copy_(slow.lerp_(p, 0.5))


class Shared(Plain):
    """One tensor for all parameters. In a checkpoint each has its own."""

    def move(self, p, scale):
        if p not in self.state:
            others = (state["count"] for state in self.state.values())
            self.state[p] = {"count": next(others, torch.zeros(()))}
        super().move(p, scale / float(self.state[p]["count"].add_(1)))


class Wrapping(Plain):
    """Another optimizer over the same groups. A loaded state gives it groups of its own."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.inner = torch.optim.SGD(self.param_groups, momentum=0.9)

    def step(self):
        self.inner.step()

    def state_dict(self):
        return {**super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict):
        state_dict = dict(state_dict)
        self.inner.load_state_dict(state_dict.pop("inner"))
        super().load_state_dict(state_dict)


class Wrapped(Wrapping):
    """The same, right."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.inner.param_groups = self.param_groups


class Numpy(Plain):
    """State that only a pickle can hold."""

    def move(self, p, scale):
        self.state[p]["scale"] = np.float64(scale)
        super().move(p, scale)
