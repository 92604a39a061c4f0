"""Lightning with its TensorBoard logger. With the argument `bar` also its progress bar and epoch means."""

import sys

import lightning
from lightning.pytorch.loggers import TensorBoardLogger
from torch.nn.functional import cross_entropy

from .turns import EPOCHS, TURNS

BAR = "bar" in sys.argv


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = TURNS.model()

    def training_step(self, batch, number):  # type: ignore[no-untyped-def]
        images, labels = batch
        logits = self.net(images)
        loss = cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("train/loss", loss, prog_bar=BAR, on_step=True, on_epoch=BAR)
        self.log("train/acc", accuracy, prog_bar=BAR, on_step=True, on_epoch=BAR)
        return loss

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        return TURNS.optimizer(self)


TURNS.flags()
trainer = lightning.Trainer(
    max_epochs=EPOCHS,
    accelerator="gpu" if TURNS.device.type == "cuda" else "cpu",
    devices=1,
    logger=TensorBoardLogger(str(TURNS.folder)),
    default_root_dir=str(TURNS.folder),
    enable_progress_bar=BAR,
    enable_model_summary=False,
)
TURNS.wait()
trainer.fit(Module(), train_dataloaders=TURNS.dataset())
