"""What one step computes. Everything a step returns is logged; "loss" is minimised."""

from torch import Tensor, nn

from .engine.api import Context, Task
from .metrics import accuracy


class Classification(Task):
    """Pictures into classes. A batch is (images [B, C, H, W], labels int64 [B])."""

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def training_step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], ctx: Context
    ) -> dict[str, Tensor]:
        images, labels = batch
        logits = model(images)
        return {"loss": self.loss(logits, labels), "acc": accuracy(logits, labels)}
