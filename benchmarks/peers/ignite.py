"""Ignite's engine. Running means of loss and accuracy go to TensorBoard every 50 steps."""

from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger
from ignite.metrics import RunningAverage
from torch.nn.functional import cross_entropy

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)


def update(engine, batch):  # type: ignore[no-untyped-def]
    images, labels = batch
    optimizer.zero_grad(set_to_none=True)
    logits = model(images)
    loss = cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return {"loss": loss.detach(), "acc": (logits.argmax(dim=1) == labels).float().mean()}


trainer = Engine(update)
RunningAverage(output_transform=lambda output: output["loss"]).attach(trainer, "loss")
RunningAverage(output_transform=lambda output: output["acc"]).attach(trainer, "acc")
logger = TensorboardLogger(log_dir=str(TURNS.folder))
logger.attach_output_handler(trainer, Events.ITERATION_COMPLETED(every=50), tag="train", metric_names=["loss", "acc"])
TURNS.wait()
trainer.run(TURNS.dataset(), max_epochs=EPOCHS, epoch_length=TURNS.epoch)
