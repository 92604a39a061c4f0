"""What one step computes. Each value that a step returns is logged; "loss" is minimised."""

from typing import Any

from torch import Tensor, nn

from .data.moving_textures import Pair
from .data.plots import draw_flow
from .engine.api import Context, Mean, Task
from .metrics import end_point


class Flow(Task):
    """Predict the motion of each pixel from one picture to another. A batch is a `Pair`."""

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def training_step(self, model: nn.Module, batch: Pair, ctx: Context) -> dict[str, Mean]:
        flow = model(batch.first, batch.second)
        return {"loss": self.loss(flow, batch), **end_point(flow, batch.flow, batch.valid)}

    def predict_step(self, model: nn.Module, batch: Pair, ctx: Context) -> list[dict[str, Any]]:
        """Return, in pixels, the mean motion to the right and down, and the largest motion."""
        flow = model(batch.first, batch.second).float()
        means, largest = flow.mean(dim=(2, 3)), flow.norm(dim=1).amax(dim=(1, 2))
        return [
            {"right": right, "down": down, "largest": most}
            for (right, down), most in zip(means.tolist(), largest.tolist(), strict=True)
        ]

    def images(self, model: nn.Module, batch: Pair, ctx: Context) -> dict[str, Tensor]:
        """Show both pictures, the true motion and the predicted motion."""
        if ctx.training:
            return {"inputs": draw_flow(batch, batch.flow)}
        return {"flow": draw_flow(batch, batch.flow, model(batch.first, batch.second))}

    def example(self, batch: Pair) -> tuple[Tensor, Tensor]:
        return batch.first, batch.second
