"""Train a small network to tell apart intertwined spirals. The kind of script that comes with a paper."""

import argparse
import math
import os
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--points", type=int, default=500, help="points per class")
    parser.add_argument("--jitter", type=float, default=0.02, help="augmentation noise")
    parser.add_argument("--center-weight", type=float, default=0.01)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", default="out")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


class Spirals(Dataset):
    def __init__(self, classes, points, jitter, seed):
        rng = np.random.RandomState(seed)
        radius = np.tile(np.linspace(0.05, 1, points), classes)
        self.labels = np.repeat(np.arange(classes), points)
        angle = radius * 4 + self.labels * 2 * math.pi / classes + rng.randn(len(radius)) * 0.1
        self.points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        self.jitter = jitter

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        point = self.points[index]
        if self.jitter:
            point = point + np.random.randn(2) * self.jitter
        return torch.tensor(point, dtype=torch.float32), int(self.labels[index])


class Net(nn.Module):
    def __init__(self, hidden, classes, dropout):
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 8),
        )
        self.head = nn.Linear(8, classes)

    def forward(self, points):
        features = self.features(points)
        return self.head(F.relu(features)), features


class CenterLoss(nn.Module):
    """Pulls features towards a learned center of their class (Wen et al. 2016)."""

    def __init__(self, classes, size):
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(classes, size))

    def forward(self, features, labels):
        return (features - self.centers[labels]).pow(2).sum(dim=1).mean()


def evaluate(model, loader, device):
    model.eval()
    correct, total, losses = 0, 0, []
    with torch.no_grad():
        for points, labels in loader:
            points, labels = points.to(device), labels.to(device)
            logits, _ = model(points)
            losses.append(F.cross_entropy(logits, labels).item())
            correct += (logits.argmax(dim=1) == labels).sum().item()
            total += len(labels)
    model.train()
    return sum(losses) / len(losses), correct / total


def main():
    args = parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    os.makedirs(args.out, exist_ok=True)

    train_set = Spirals(args.classes, args.points, args.jitter, seed=0)
    val_set = Spirals(args.classes, args.points // 4, 0, seed=1)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True)
    val_loader = DataLoader(val_set, args.batch_size, num_workers=args.workers)

    model = Net(args.hidden, args.classes, args.dropout).to(device)
    center_loss = CenterLoss(args.classes, 8).to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.parameters()},
            {"params": center_loss.parameters(), "lr": args.lr * 10, "weight_decay": 0},
        ],
        lr=args.lr,
        weight_decay=args.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs * len(train_loader))
    start, best = 0, 0.0
    path = os.path.join(args.out, "checkpoint.pt")
    if args.resume and os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, best = state["epoch"] + 1, state["best"]

    for epoch in range(start, args.epochs):
        for step, (points, labels) in enumerate(train_loader):
            points, labels = points.to(device), labels.to(device)
            logits, features = model(points)
            ce = F.cross_entropy(logits, labels)
            center = center_loss(features, labels)
            loss = ce + args.center_weight * center
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            optimizer.step()
            scheduler.step()
            if step % 10 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.4f} center {center.item():.4f}")
        val_loss, val_acc = evaluate(model, val_loader, device)
        print(f"epoch {epoch} val loss {val_loss:.4f} val acc {val_acc:.4f}")
        if val_acc > best:
            best = val_acc
            torch.save(model.state_dict(), os.path.join(args.out, "best.pt"))
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "best": best},
            path,
        )
    print(f"best val acc {best:.4f}")


if __name__ == "__main__":
    main()
