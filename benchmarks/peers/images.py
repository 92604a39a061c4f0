"""Loops over pictures, written by hand: `bare` (as fast as possible), `naive` (as in most scripts), `fixed` (the same
batch in the device's memory in every step: the model alone, with the fastest kernels) and `epochs` (`bare`, with a
validation after each epoch; a turn is both). Further arguments: a model of torchvision, the side of a picture, and
`compile`."""

import sys
import time

import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchvision import models, transforms

from .pictures import MEAN, SHIFT, STD, draw
from .turns import EPOCHS, TURNS

kind, name, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
device = TURNS.device
model = models.get_model(name, weights=None, num_classes=10).to(device)
images, labels = draw(TURNS.epoch * TURNS.batch if side < 64 else TURNS.batch, side)


def fast_loop() -> None:
    if kind in ("fixed", "epochs"):
        torch.backends.cudnn.benchmark = True
    else:
        TURNS.flags()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    network = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    forward = torch.compile(network, dynamic=False) if "compile" in sys.argv else network
    pixels, targets = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    padded = torch.nn.functional.pad(pixels, (0, 0, SHIFT, SHIFT, SHIFT, SHIFT))
    mean = 255 * torch.tensor(MEAN, device=device).reshape(3, 1, 1)
    scale = 1 / (255 * torch.tensor(STD, device=device).reshape(3, 1, 1))
    rows = torch.arange(side, device=device)

    def normalised(bytes_: torch.Tensor) -> torch.Tensor:
        floats = bytes_.permute(0, 3, 1, 2).float().sub_(mean).mul_(scale)
        return floats.contiguous(memory_format=torch.channels_last)

    def augmented(chosen: torch.Tensor) -> torch.Tensor:
        down, right = torch.randint(2 * SHIFT + 1, (2, len(chosen), 1), device=device)
        columns = torch.where(torch.rand(len(chosen), 1, device=device) < 0.5, rows, rows.flip(0)) + right
        return normalised(padded[chosen[:, None, None], (rows + down)[:, :, None], columns[:, None, :]])

    @torch.no_grad()
    def validate() -> float:
        network.eval()
        right = torch.zeros((), device=device)
        parts = (rows[: len(rows) // 5].split(TURNS.batch) for rows in (pixels, targets))
        for part, wanted in zip(*parts, strict=True):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                right += (forward(normalised(part)).argmax(1) == wanted).sum()
        network.train()
        return right.item()

    still = normalised(pixels[: TURNS.batch]) if kind == "fixed" else None
    TURNS.wait()
    for _ in range(EPOCHS):
        began = time.perf_counter()
        order = torch.randperm(len(targets), device=device)
        for step in range(TURNS.epoch):
            if kind != "epochs":
                TURNS.step()
            chosen = order[step * TURNS.batch : (step + 1) * TURNS.batch] if still is None else slice(TURNS.batch)
            batch = augmented(chosen) if still is None else still
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = cross_entropy(forward(batch), targets[chosen])
            loss.backward()
            optimizer.step()
        if kind == "epochs":
            validate()
            peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            TURNS.answer([time.perf_counter() - began, 0.0, peak])
            TURNS.wait()


class Pictures(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.transform = transforms.Compose(
            [
                *(transforms.RandomCrop(side, padding=SHIFT), transforms.RandomHorizontalFlip()),
                *(transforms.ToTensor(), transforms.Normalize(MEAN, STD)),
            ]
        )

    def __len__(self) -> int:
        return len(labels)

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        return self.transform(Image.fromarray(images[index])), int(labels[index])


def naive_loop() -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(Pictures(), TURNS.batch, shuffle=True, drop_last=True, num_workers=4, pin_memory=True)
    writer, count = SummaryWriter(str(TURNS.folder)), 0
    TURNS.wait()
    for _ in range(EPOCHS):
        for batch, targets in loader:
            TURNS.step()
            batch, targets = batch.to(device), targets.to(device)
            optimizer.zero_grad()
            logits = model(batch)
            loss = cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
            writer.add_scalar("train/loss", loss.item(), count)
            writer.add_scalar("train/acc", (logits.argmax(1) == targets).float().mean().item(), count)
            count += 1


naive_loop() if kind == "naive" else fast_loop()
