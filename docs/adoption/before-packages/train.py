import argparse
import json

import data_loader.loaders as loaders
import model.loss as losses
import model.metric as metrics
import model.model as models
import torch
from utils.files import ensure_folder

parser = argparse.ArgumentParser()
parser.add_argument("--config", default="config.json")
with open(parser.parse_args().config) as file:
    config = json.load(file)

net = getattr(models, config["model"]["type"])(**config["model"]["args"])
train, val = getattr(loaders, config["data"]["type"])(**config["data"]["args"])
loss_of = getattr(losses, config["loss"])
optimizer = torch.optim.Adam(net.parameters(), lr=config["lr"])
for epoch in range(config["epochs"]):
    net.train()
    for x, y in train:
        optimizer.zero_grad()
        loss_of(net(x), y).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        found = [getattr(metrics, config["metric"])(net(x), y) for x, y in val]
    print(f"epoch {epoch + 1} accuracy {sum(found) / len(found):.3f}")
torch.save(net.state_dict(), ensure_folder("saved") / "last.pth")
