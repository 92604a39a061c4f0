"""The usual script: loss and accuracy are read and written to TensorBoard in every step."""

from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)
writer = SummaryWriter(str(TURNS.folder))
step = 0
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in TURNS.batches():
        optimizer.zero_grad()
        logits = model(images)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        writer.add_scalar("train/loss", loss.item(), step)
        writer.add_scalar("train/acc", accuracy.item(), step)
        step += 1
