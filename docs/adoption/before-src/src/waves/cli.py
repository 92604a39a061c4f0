import argparse

import torch
import yaml
from torch.utils.data import DataLoader

from waves.nets import Recurrent
from waves.series import Windows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="configs/default.yaml")
    with open(parser.parse_args().config) as file:
        config = yaml.safe_load(file)
    train = DataLoader(Windows(config["length"], 1000, seed=0), 50, shuffle=True)
    val = DataLoader(Windows(config["length"], 200, seed=1), 200)
    net = Recurrent(config["hidden"])
    optimizer = torch.optim.Adam(net.parameters(), lr=config["lr"])
    for epoch in range(config["epochs"]):
        for x, y in train:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            error = sum(torch.nn.functional.mse_loss(net(x), y) * len(y) for x, y in val) / 200
        print(f"epoch {epoch + 1} error {error.sqrt():.3f}")


if __name__ == "__main__":
    main()
