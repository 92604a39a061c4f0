"""The bare loop that also writes the means of loss and accuracy to TensorBoard every 50 steps."""

from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter

from .turns import EPOCHS, TURNS, Means

TURNS.flags()
model = TURNS.model()
optimizer = TURNS.optimizer(model)
writer = SummaryWriter(str(TURNS.folder))
means = Means()
TURNS.wait()
for _ in range(EPOCHS):
    for images, labels in TURNS.batches():
        optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        if values := means.add(loss, logits, labels):
            for tag, value in values.items():
                writer.add_scalar(tag, value, means.step)
