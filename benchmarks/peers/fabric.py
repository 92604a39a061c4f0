"""Lightning Fabric around a loop written by hand. Means of loss and accuracy go to TensorBoard every 50 steps."""

from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from torch.nn.functional import cross_entropy

from .turns import EPOCHS, TURNS, Means

TURNS.flags()
fabric = Fabric(accelerator=TURNS.device.type, devices=1, loggers=TensorBoardLogger(str(TURNS.folder)))
model = TURNS.model()
model, optimizer = fabric.setup(model, TURNS.optimizer(model))
means = Means()
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in TURNS.batches():
        optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        loss = cross_entropy(logits, labels)
        fabric.backward(loss)
        optimizer.step()
        if values := means.add(loss, logits, labels):
            fabric.log_dict(values, means.step)
