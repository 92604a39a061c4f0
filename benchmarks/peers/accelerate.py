"""Accelerate around a loop written by hand. Means of loss and accuracy go to TensorBoard every 50 steps."""

from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from .turns import EPOCHS, TURNS, Means

TURNS.flags()
accelerator = Accelerator(cpu=TURNS.device.type == "cpu", log_with="tensorboard", project_dir=str(TURNS.folder))
accelerator.init_trackers("run")
model = TURNS.model()
loader = DataLoader(TURNS.dataset(), batch_size=None)
model, optimizer, loader = accelerator.prepare(model, TURNS.optimizer(model), loader)
means = Means()
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in loader:
        optimizer.zero_grad()
        logits = model(images)
        loss = cross_entropy(logits, labels)
        accelerator.backward(loss)
        optimizer.step()
        if values := means.add(loss, logits, labels):
            accelerator.log(values, means.step)
