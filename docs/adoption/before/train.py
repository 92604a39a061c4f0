import torch
from sugar.dataset import DEVIATION, load
from sugar.model import Net
from torch.utils.data import DataLoader

model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
train, val = DataLoader(load(True), 32, shuffle=True), DataLoader(load(False), 128)
for epoch in range(30):
    for x, y in train:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = torch.cat([(model(x) - y).square() for x, y in val]).mean().sqrt() * DEVIATION
    print(f"epoch {epoch + 1} error {error:.1f}")
torch.save(model.state_dict(), "model.pt")
