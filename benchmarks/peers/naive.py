"""The usual script: loss and accuracy are read and written to TensorBoard in every step; with `bar` shown, too."""

import sys

from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)
writer = SummaryWriter(str(TURNS.folder))
step = 0
TURNS.wait()
for _ in range(EPOCHS):
    bar = tqdm(TURNS.batches(), disable="bar" not in sys.argv)
    for images, labels in bar:
        optimizer.zero_grad()
        logits = model(images)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        writer.add_scalar("train/loss", loss.item(), step)
        writer.add_scalar("train/acc", accuracy.item(), step)
        if not bar.disable:
            bar.set_postfix(loss=loss.item())
        step += 1
