"""The usual script: it reads loss and accuracy in every step and writes them to TensorBoard. With `bar` it also
shows them. With `loader` its batches come from a default DataLoader."""

import sys
from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .turns import EPOCHS, TURNS

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)
writer = SummaryWriter(str(TURNS.folder))
step = 0


def loaded() -> Iterator[tuple[Tensor, ...]]:
    batches = iter(loader)
    for _ in range(len(loader)):
        TURNS.step()
        yield tuple(part.to(TURNS.device) for part in next(batches))


loader = DataLoader(TensorDataset(*TURNS.rows()), batch_size=TURNS.batch, shuffle=True)
read = loaded if "loader" in sys.argv else TURNS.batches
TURNS.wait()
for _ in range(EPOCHS):
    bar = tqdm(read(), disable="bar" not in sys.argv)
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
